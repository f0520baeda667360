"""The gate's checks on `<recipe>/champion`, by name and with their numbers.

A check that fails keeps a candidate from becoming champion, where the recipe's gate says that it
blocks (all do, by default). Where something is wrong with the candidate, Dagster shows such a check
as failed (ERROR); a candidate that is not shown to be better is no fault, and a check that blocks
nothing only tells (WARN). What is blocked is the promotion: the champion itself is as good as
before, so what is downstream of it goes on, and the run does not fail. Where nothing was judged
every check says so.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.display import number

if TYPE_CHECKING:
    from assets.work.ranking.ranking import Held, Promotion
    from eval_ops.scores.gates import GateCheck

NOT_JUDGED = "not judged"
"""Metadata of checks that had nothing to look at; another check tells why, once."""
NAMES = ("mean_is_better", "no_benchmark_lost", "enough_items", "answers_are_finite")
"""Those of eval_ops.scores.decision, which definitions do not import: it brings numpy (a test)."""

UNDECIDED = "mean_is_better"
"""Fails in the ordinary course of things: most candidates are no better than the champion."""


def gate_results(promotion: "Promotion | Held | None") -> list[dg.AssetCheckResult]:
    """Return one result for each of the gate's checks, in the order of NAMES."""
    from assets.work.ranking.ranking import Promotion

    if not isinstance(promotion, Promotion):
        why = promotion.reason if promotion is not None else "no candidate is scored"
        return [_not_judged(name, why) for name in NAMES]
    if promotion.decision is None:
        return [
            dg.AssetCheckResult(check_name=name, passed=True, metadata={"told": told})
            for name in NAMES
            for told in promotion.reasons[:1]
        ]
    return [_result(check) for check in promotion.decision.checks]


def _not_judged(name: str, why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"problems": why, NOT_JUDGED: True},
    )


def _result(check: "GateCheck") -> dg.AssetCheckResult:
    shown = {key: _shown(value) for key, value in check.numbers.items()}
    if not check.judged:
        return _not_judged(check.name, check.told)
    says = {"told": check.told} if check.passed else {"problems": check.told}
    wrong = check.blocking and check.name != UNDECIDED
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=check.passed,
        severity=dg.AssetCheckSeverity.ERROR if wrong else dg.AssetCheckSeverity.WARN,
        metadata={**says, "blocking": check.blocking, **shown},
    )


def _shown(value: Any) -> Any:
    return number(value) if isinstance(value, float) else value

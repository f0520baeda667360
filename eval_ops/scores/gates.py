"""The gate: a candidate becomes champion only when the evidence says so.

Its checks, all on test items, paired item by item:

- `mean_is_better`: the candidate's mean is significantly above the incumbent champion's. Where
  there is no incumbent, above the mean of the best single expert. A better-looking but undecided
  candidate does not pass.
- `no_benchmark_lost`: on no benchmark is the candidate worse than the expert that is best there by
  significantly more than the allowed loss. It fails where it is significantly worse (by Holm's
  correction over the benchmarks) and the whole interval lies below −allowed_loss.
- `enough_items`: every benchmark has the items that the gate asks for, and where they share
  passages so many passages that a loss could be shown at all.
- `answers_are_finite`: no answer of the candidate is worth NaN or infinity.

All that are `blocking` must pass; otherwise the champion stays.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval_ops.errors import GateError
from eval_ops.faults import list_faults
from eval_ops.scores.comparison import ROUNDING, Comparison, compare
from eval_ops.scores.decision import (
    CHECK_NAMES,
    BenchmarkCheck,
    CheckName,
    Decision,
    GateCheck,
    interval_text,
    p_value_text,
)
from eval_ops.scores.multiplicity import holm as holm
from eval_ops.scores.scores import SuiteScores


class Gate(BaseModel):
    """What it takes to become champion; the keys of a recipe's `gate`.

    allowed_loss: the loss allowed on any benchmark against the best single expert there, as a
    share (0.05 = 5 points), 0 to 1. confidence: of every interval and test, above 0.5, below 1.
    minimum_samples: no promotion on a benchmark with fewer test items, at least 1. blocking: the
    checks that a candidate must pass, all by default; the others are told, no more. Answers that
    are not finite always block. early_stopping: a candidate that is worse for sure, by
    `confidence`, is not asked all items; who is judged was asked everything. reduced_set: the share
    of the validation items that all candidates are asked first, with early stopping.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    allowed_loss: float = Field(default=0.05, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    minimum_samples: int = Field(default=20, ge=1)
    blocking: list[CheckName] = Field(default_factory=lambda: list(CHECK_NAMES))
    early_stopping: bool = False
    reduced_set: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> "Gate":
        if self.reduced_set is not None and not self.early_stopping:
            raise ValueError("reduced_set goes with `early_stopping: true`; add it, or remove this")
        return self

    def blocks(self, check: str) -> bool:
        """Tell whether a candidate that fails this check stays what it is."""
        return check == "answers_are_finite" or check in self.blocking


def parse_gate(settings: Mapping[str, object], where: str = "gate") -> Gate:
    """Check a recipe's `gate` mapping; an empty one gives the defaults.

    GateError lists every unknown key and impossible value; `where` names the place in it.
    """
    try:
        return Gate.model_validate(dict(settings))
    except ValidationError as error:
        faults = list_faults(error, lambda _: Gate.model_fields)
        raise GateError(where, faults) from None


def decide(
    candidate: SuiteScores,
    experts: Mapping[str, SuiteScores],
    incumbent: SuiteScores | None,
    gate: Gate,
) -> Decision:
    """Decide whether `candidate` becomes champion. `experts` maps names to their scores.

    Raises GateError without experts, PairingError when any two were scored on different suites
    or carry no samples.
    """
    if not experts:
        raise GateError("gate", ["no single expert was given to compare with; score one at least"])
    best = max(sorted(experts), key=lambda name: experts[name].mean().value)
    opponent, rival = ("incumbent", incumbent) if incumbent else (best, experts[best])
    title = "the incumbent" if incumbent else f"the best single expert '{best}'"
    broken = [f"'{name}'" for name, scores in experts.items() if _odd_score(scores)]
    if not broken and _odd(rival):
        broken = [f"'{opponent}'"]
    if broken:
        raise GateError(
            "gate", [f"{each} has scores that are not finite; score it again" for each in broken]
        )
    odd = _odd(candidate)
    if odd:
        return _refused(candidate, rival, opponent, odd, gate)
    mean = compare(candidate, rival, confidence=gate.confidence)
    benchmarks = _benchmark_checks(candidate, experts, gate)
    few = {check.benchmark: _few_reason(check, gate, len(benchmarks)) for check in benchmarks}
    few = {name: reason for name, reason in few.items() if reason}
    lost = [check for check in benchmarks if not check.passed]
    told = _mean_reason(candidate, rival, mean, title)
    checks = (
        _gate_check("mean_is_better", mean.verdict == "better", gate, told, _numbers(mean)),
        _gate_check(
            "no_benchmark_lost",
            not lost,
            gate,
            "; ".join(_loss_reason(check, gate) for check in lost) or "no benchmark is lost",
            {f"{check.benchmark}: {k}": v for check in benchmarks for k, v in _loss(check).items()},
        ),
        _gate_check(
            "enough_items",
            not few,
            gate,
            "; ".join(few.values()) or "there are enough test items",
            {check.benchmark: check.n for check in benchmarks} | {"asked": gate.minimum_samples},
        ),
        _gate_check("answers_are_finite", True, gate, "every answer is finite", {}),
    )
    reasons = [told, *(_loss_reason(check, gate) for check in lost)]
    reasons += few.values()
    advice = [check.name for check in checks if not check.passed and not check.blocking]
    if advice:
        reasons.append(f"not blocking in this recipe: {', '.join(advice)}")
    return Decision(
        promote=all(check.passed for check in checks if check.blocking),
        reasons=tuple(reasons),
        opponent=opponent,
        candidate_mean=candidate.mean().value,
        opponent_mean=rival.mean().value,
        mean=mean,
        benchmarks=benchmarks,
        checks=checks,
    )


def _odd_score(scores: SuiteScores) -> str:
    """Name the first benchmark whose score is NaN or infinite; reads no answers."""
    odd = (name for name in scores.benchmarks if not math.isfinite(scores.score(name).value))
    return next(odd, "")


def _odd(scores: SuiteScores) -> str:
    """Name the first answer that is worth NaN or infinity; "" where there is none."""
    if odd := _odd_score(scores):
        return odd
    for benchmark in scores.benchmarks:
        for item, value in scores.values(benchmark).items():
            if not math.isfinite(value):
                return f"{benchmark}, item '{item}'"
    return ""


def _refused(
    candidate: SuiteScores, rival: SuiteScores, opponent: str, odd: str, gate: Gate
) -> Decision:
    """The decision on a candidate that answers with NaN: there is nothing to compare."""
    told = f"{odd}: the candidate's answers are worth NaN or infinity; its weights are broken"
    nothing = Comparison("undecided", math.nan, math.nan, math.nan, gate.confidence, 0)
    untold = "not looked at: answers are not finite"
    checks = tuple(
        GateCheck(name, False, gate.blocks(name), told if judged else untold, {}, judged)
        for name in CHECK_NAMES
        for judged in [name == "answers_are_finite"]
    )
    mean = candidate.mean().value, rival.mean().value
    return Decision(False, (told,), opponent, *mean, nothing, (), checks)


def _gate_check(
    name: CheckName, passed: bool, gate: Gate, told: str, numbers: Mapping[str, Any]
) -> GateCheck:
    return GateCheck(name, passed, gate.blocks(name), told, numbers)


def _benchmark_checks(
    candidate: SuiteScores, experts: Mapping[str, SuiteScores], gate: Gate
) -> tuple[BenchmarkCheck, ...]:
    best = {
        benchmark: max(sorted(experts), key=lambda name: experts[name].score(benchmark).value)
        for benchmark in candidate.benchmarks
    }
    compared = {
        benchmark: compare(
            candidate, experts[expert], benchmarks=[benchmark], confidence=gate.confidence
        )
        for benchmark, expert in best.items()
    }
    adjusted = holm({benchmark: each.surprise for benchmark, each in compared.items()})
    checks: list[BenchmarkCheck] = []
    for benchmark, comparison in compared.items():
        surprising = adjusted[benchmark] <= 1 - gate.confidence
        below = comparison.verdict == "worse" and comparison.high < -gate.allowed_loss
        ours, theirs = candidate.score(benchmark), experts[best[benchmark]].score(benchmark)
        checks.append(
            BenchmarkCheck(
                benchmark=benchmark,
                candidate=ours.value,
                expert=best[benchmark],
                expert_value=theirs.value,
                n=comparison.n,
                comparison=comparison,
                passed=not (below and surprising),
                adjusted=adjusted[benchmark],
                candidate_low=ours.low,
                candidate_high=ours.high,
                expert_low=theirs.low,
                expert_high=theirs.high,
            )
        )
    return tuple(checks)


def _numbers(comparison: Comparison) -> dict[str, Any]:
    """What a comparison says in numbers, differences in points."""
    return {
        "verdict": comparison.verdict,
        "difference": 100 * comparison.difference,
        "low": 100 * comparison.low,
        "high": 100 * comparison.high,
        "p": comparison.surprise,
        "n": comparison.n,
    }


def _loss(check: BenchmarkCheck) -> dict[str, Any]:
    return {**_numbers(check.comparison), "p, Holm": check.adjusted, "expert": check.expert}


def _few_reason(check: BenchmarkCheck, gate: Gate, benchmarks: int) -> str:
    """Why a benchmark has too little to decide on; "" where it has enough.

    Of C passages the sign-flip test cannot give less than p = 2 / 2^C, and Holm multiplies that by
    the number of benchmarks: with fewer passages the whole benchmark could be lost, and no test
    would say so.
    """
    if check.n < gate.minimum_samples:
        return (
            f"{check.benchmark}: {check.n} test items are too few to decide on; the gate asks for "
            f"{gate.minimum_samples}"
        )
    groups = check.comparison.clusters
    least = math.ceil(1 + math.log2(benchmarks / (1 - gate.confidence)) - ROUNDING)
    if groups is None or groups >= least:
        return ""
    return (
        f"{check.benchmark}: {check.n} test items in {groups} groups are too few to show a loss; "
        f"it takes {least} groups"
    )


def _mean_reason(candidate: SuiteScores, rival: SuiteScores, mean: Comparison, title: str) -> str:
    relation = {
        "better": "is significantly above",
        "worse": "is significantly below",
        "undecided": "is not significantly above",
    }[mean.verdict]
    return (
        f"the mean, {100 * candidate.mean().value:.1f}, {relation} that of {title}, "
        f"{100 * rival.mean().value:.1f} (difference {interval_text(mean)} points"
        f"{p_value_text(mean)})"
    )


def _loss_reason(check: BenchmarkCheck, gate: Gate) -> str:
    return (
        f"{check.benchmark}: {100 * check.candidate:.1f} is below {100 * check.expert_value:.1f} "
        f"of the best single expert there, '{check.expert}', by significantly more than the "
        f"allowed {100 * gate.allowed_loss:g} points (difference {interval_text(check.comparison)}"
        f"{p_value_text(check.comparison)})"
    )

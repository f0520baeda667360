"""The gate: a candidate becomes champion only when the evidence says so.

Two conditions, both on test items, paired item by item:

1. The candidate's mean is significantly above the incumbent champion's. Where there is no
   incumbent, above the mean of the best single expert.
2. On no benchmark is the candidate worse than the expert that is best there by significantly more
   than the allowed loss: it fails where it is significantly worse and the whole interval of the
   difference lies below −allowed_loss.

Otherwise the champion stays.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval_ops.errors import GateError
from eval_ops.faults import list_faults
from eval_ops.scores.comparison import Comparison, compare
from eval_ops.scores.scores import SuiteScores


class Gate(BaseModel):
    """What it takes to become champion; the keys of a recipe's `gate`.

    allowed_loss: the loss allowed on any benchmark against the best single expert there, as a
    share (0.05 = 5 points), 0 to 1. confidence: of every interval and test, above 0.5, below 1.
    minimum_samples: no promotion on a benchmark with fewer test items, at least 1.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    allowed_loss: float = Field(default=0.05, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    minimum_samples: int = Field(default=20, ge=1)


@dataclass(frozen=True)
class BenchmarkCheck:
    """The candidate on one benchmark against the single expert that is best there."""

    benchmark: str
    candidate: float
    expert: str
    expert_value: float
    n: int
    comparison: Comparison
    passed: bool


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why. `opponent` is "incumbent" or the best single expert's name."""

    promote: bool
    reasons: tuple[str, ...]
    opponent: str
    candidate_mean: float
    opponent_mean: float
    mean: Comparison
    benchmarks: tuple[BenchmarkCheck, ...]

    def to_json(self) -> str:
        """Write all fields as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_markdown(self) -> str:
        """Write the verdict, its reasons and a table of the benchmarks."""
        lines = ["**promoted**" if self.promote else "**the champion stays**", ""]
        lines += [f"- {reason}" for reason in self.reasons]
        lines += ["", "| benchmark | candidate | best expert | difference | passed |"]
        lines += ["|---|---:|---:|---:|---|"]
        lines += [
            f"| {check.benchmark} | {100 * check.candidate:.1f} "
            f"| {100 * check.expert_value:.1f} ({check.expert}) "
            f"| {_interval(check.comparison)} | {'yes' if check.passed else 'no'} |"
            for check in self.benchmarks
        ]
        return "\n".join(lines) + "\n"


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
    mean = compare(candidate, rival, confidence=gate.confidence)
    checks = tuple(_check(candidate, experts, name, gate) for name in candidate.benchmarks)
    few = [check for check in checks if check.n < gate.minimum_samples]
    promote = mean.verdict == "better" and not few and all(check.passed for check in checks)
    title = "the incumbent" if incumbent else f"the best single expert '{best}'"
    reasons = [_mean_reason(candidate, rival, mean, title)]
    reasons += [_loss_reason(check, gate) for check in checks if not check.passed]
    reasons += [
        f"{check.benchmark}: {check.n} test items are too few to decide on; the gate asks for "
        f"{gate.minimum_samples}"
        for check in few
    ]
    return Decision(
        promote=promote,
        reasons=tuple(reasons),
        opponent=opponent,
        candidate_mean=candidate.mean().value,
        opponent_mean=rival.mean().value,
        mean=mean,
        benchmarks=checks,
    )


def _check(
    candidate: SuiteScores, experts: Mapping[str, SuiteScores], benchmark: str, gate: Gate
) -> BenchmarkCheck:
    best = max(sorted(experts), key=lambda name: experts[name].score(benchmark).value)
    comparison = compare(
        candidate, experts[best], benchmarks=[benchmark], confidence=gate.confidence
    )
    lost = comparison.verdict == "worse" and comparison.high < -gate.allowed_loss
    return BenchmarkCheck(
        benchmark=benchmark,
        candidate=candidate.score(benchmark).value,
        expert=best,
        expert_value=experts[best].score(benchmark).value,
        n=comparison.n,
        comparison=comparison,
        passed=not lost,
    )


def _mean_reason(candidate: SuiteScores, rival: SuiteScores, mean: Comparison, title: str) -> str:
    relation = {
        "better": "is significantly above",
        "worse": "is significantly below",
        "undecided": "is not significantly above",
    }[mean.verdict]
    return (
        f"the mean, {100 * candidate.mean().value:.1f}, {relation} that of {title}, "
        f"{100 * rival.mean().value:.1f} (difference {_interval(mean)} points{_p_value(mean)})"
    )


def _loss_reason(check: BenchmarkCheck, gate: Gate) -> str:
    return (
        f"{check.benchmark}: {100 * check.candidate:.1f} is below {100 * check.expert_value:.1f} "
        f"of the best single expert there, '{check.expert}', by significantly more than the "
        f"allowed {100 * gate.allowed_loss:g} points (difference {_interval(check.comparison)}"
        f"{_p_value(check.comparison)})"
    )


def _interval(comparison: Comparison) -> str:
    low, high = 100 * comparison.low, 100 * comparison.high
    return (
        f"{100 * comparison.difference:+.1f}, {100 * comparison.confidence:g} % interval "
        f"{low:+.1f} to {high:+.1f}"
    )


def _p_value(comparison: Comparison) -> str:
    return "" if comparison.p_value is None else f", McNemar p = {comparison.p_value:.2g}"

"""What a gate decided: its checks by name, with their numbers, for people and programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from eval_ops.scores.comparison import Comparison
from eval_ops.scores.leaderboard import percent
from eval_ops.scores.scores import Mean

CheckName = Literal["mean_is_better", "no_benchmark_lost", "enough_items", "answers_are_finite"]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)


@dataclass(frozen=True)
class BenchmarkCheck:
    """The candidate on one benchmark against the single expert that is best there.

    `adjusted` is the comparison's p-value by Holm's correction over the benchmarks; `candidate_low`
    to `expert_high` bound the 95 % intervals of the two scores.
    """

    benchmark: str
    candidate: float
    expert: str
    expert_value: float
    n: int
    comparison: Comparison
    passed: bool
    adjusted: float = 1.0
    candidate_low: float = 0.0
    candidate_high: float = 1.0
    expert_low: float = 0.0
    expert_high: float = 1.0


@dataclass(frozen=True)
class GateCheck:
    """One check of the gate, by name, with the numbers that it looked at and what they say.

    It is not `judged`, and not passed, where another check left it nothing to look at.
    """

    name: CheckName
    passed: bool
    blocking: bool
    told: str
    numbers: Mapping[str, Any]
    judged: bool = True


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why. `opponent` is "incumbent" or the best single expert's name.

    `checks` are the gate's, each by name.
    """

    promote: bool
    reasons: tuple[str, ...]
    opponent: str
    candidate_mean: float
    opponent_mean: float
    mean: Comparison
    benchmarks: tuple[BenchmarkCheck, ...]
    checks: tuple[GateCheck, ...] = ()

    def to_json(self) -> str:
        """Write all fields as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_markdown(self) -> str:
        """Write the verdict, its reasons and a table of the benchmarks."""
        lines = ["**promoted**" if self.promote else "**the champion stays**", ""]
        lines += [f"- {reason}" for reason in self.reasons]
        lines += ["", "| benchmark | candidate | best expert | difference | p, Holm | passed |"]
        lines += ["|---|---:|---:|---:|---:|---|"]
        lines += [_table_line(check) for check in self.benchmarks]
        return "\n".join(lines) + "\n"


def interval_text(comparison: Comparison) -> str:
    """Write a difference and its interval in points: `+4.2, 95 % interval +0.8 to +7.5`."""
    low, high = 100 * comparison.low, 100 * comparison.high
    return (
        f"{100 * comparison.difference:+.1f}, {100 * comparison.confidence:g} % interval "
        f"{low:+.1f} to {high:+.1f}"
    )


def p_value_text(comparison: Comparison) -> str:
    """Write the p-value of a comparison behind a comma; "" where no test of that kind was made."""
    if comparison.clusters is not None:
        return f", {comparison.clusters} groups, sign-flip p = {comparison.surprise:.2g}"
    return "" if comparison.p_value is None else f", McNemar p = {comparison.p_value:.2g}"


def _table_line(check: BenchmarkCheck) -> str:
    candidate = Mean(check.candidate, None, check.candidate_low, check.candidate_high)
    expert = Mean(check.expert_value, None, check.expert_low, check.expert_high)
    return (
        f"| {check.benchmark} | {percent(candidate)} | {percent(expert)} {check.expert} "
        f"| {interval_text(check.comparison)} | {check.adjusted:.2g} "
        f"| {'yes' if check.passed else 'no'} |"
    )

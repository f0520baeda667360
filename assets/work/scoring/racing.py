"""Candidates asked in rounds until the answers decide, with a recipe's gate. Knows no Dagster.

Who answers is a callable (`eval_ops.scores.rounds.Ask`): a live model that was given a candidate's
weights, an endpoint, or scores that are known. What is asked follows from scores that are known
already: the champion's, or an expert's, on the same suite.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval_ops.scores import SuiteScores
from eval_ops.scores.rounds import (
    ROUND,
    Ask,
    Benchmarks,
    Challenge,
    Course,
    Item,
    Saved,
    Selection,
    course_of,
)
from eval_ops.scores.rounds import challenge as run_challenge
from eval_ops.scores.rounds import select as run_selection

if TYPE_CHECKING:
    from eval_ops.scores.gates import Gate

PILOT = 2 * ROUND
"""Units that every candidate is asked before the order of the others is chosen."""


@dataclass(frozen=True)
class Contender:
    """A candidate of a race: whom to ask on validation items, and on test items."""

    validation: Ask
    test: Ask


@dataclass(frozen=True)
class RaceResult:
    """The best candidate of a race and how its challenge of the champion ended.

    A verdict "undecided" leaves the decision to the gate: the candidate was asked everything.
    """

    selection: Selection
    challenge: Challenge

    @property
    def saved(self) -> Saved:
        """What was saved of the items of both."""
        parts = (self.selection.saved, self.challenge.saved)
        return Saved(sum(part.asked for part in parts), sum(part.total for part in parts))

    def to_text(self) -> str:
        """Say who won, how, and what was saved."""
        left = len(self.selection.left)
        return (
            f"{self.selection.best} is the best of {len(self.selection.asked)} on validation items"
            f" ({left} were left early: {self.selection.saved.to_text()}); against the champion it"
            f" is {self.challenge.verdict} on test items ({self.challenge.saved.to_text()})"
        )


def race(
    contenders: Mapping[str, Contender],
    champion: SuiteScores,
    experts: Mapping[str, SuiteScores],
    gate: "Gate",
    seed: int = 0,
) -> RaceResult:
    """Choose the best contender on validation items, and set it against the champion on test items.

    `champion` is the incumbent's scores, or those of the best single expert where there is none.
    Raises PairingError when scores were made on different suites or carry no samples.
    """
    validation = course_from(champion, "validation", whole=True, seed=seed)
    asks = {name: contender.validation for name, contender in contenders.items()}
    selection = run_selection(validation, asks, gate.confidence, pilot_units=PILOT)
    found = challenge_champion(contenders[selection.best].test, champion, experts, gate, seed)
    return RaceResult(selection, found)


def challenge_champion(
    ask: Ask,
    champion: SuiteScores,
    experts: Mapping[str, SuiteScores],
    gate: "Gate",
    seed: int = 0,
) -> Challenge:
    """Ask a candidate test items until it is better or worse than the champion, or all were asked.

    "Better" needs that no benchmark is lost by the gate's allowed loss against its best expert, and
    as many items of each as the gate asks for. "Undecided" leaves the decision to the gate.
    """
    course = course_from(champion, "test", whole=False, seed=seed)
    guards = Benchmarks(_best_values(experts), gate.allowed_loss, gate.minimum_samples)
    return run_challenge(course, ask, values_of(champion), guards, gate.confidence)


def course_from(scores: SuiteScores, split: str, *, whole: bool, seed: int = 0) -> Course:
    """Return the course over the items that scores were made on."""
    groups: dict[str, dict[str, str]] = {}
    for benchmark in scores.benchmarks:
        passages = scores.groups(benchmark, split)
        items = scores.values(benchmark, split)
        groups[benchmark] = {item: passages.get(item, "") for item in items}
    return course_of(groups, whole=whole, seed=seed)


def values_of(scores: SuiteScores, split: str = "test") -> dict[Item, float]:
    """Return the value of every item of a split."""
    return {
        (benchmark, item): value
        for benchmark in scores.benchmarks
        for item, value in scores.values(benchmark, split).items()
    }


def _best_values(experts: Mapping[str, SuiteScores]) -> dict[Item, float]:
    """Of each benchmark the test values of the single expert that is best there."""
    values: dict[Item, float] = {}
    for benchmark in next(iter(experts.values())).benchmarks:
        best = max(sorted(experts), key=lambda name: experts[name].score(benchmark).value)
        for item, value in experts[best].values(benchmark).items():
            values[benchmark, item] = value
    return values

"""What scoring a set of candidates takes and gives: who is asked, and what became of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from assets.work.scoring.candidates import MadePoint
from assets.work.scoring.scoring import ScoredCheckpoint
from eval_ops.scores import SuiteScores
from eval_ops.scores.rounds import Saved

if TYPE_CHECKING:
    from merge_ops.progress import Progress
    from resources.store import Artifact


class Asker(Protocol):
    """Who asks candidates: a `CandidateScorer`."""

    def made(self, recipe: str, partition: str) -> MadePoint:
        """Find what a recipe made for a partition."""
        ...

    def ask(
        self,
        made: MadePoint,
        items: Mapping[str, Sequence[int]],
        progress: "Progress | None" = None,
    ) -> SuiteScores:
        """Ask it some items."""
        ...

    def score_point(
        self, recipe: str, partition: str, progress: "Progress | None" = None
    ) -> ScoredCheckpoint:
        """Ask it everything, and keep the scores."""
        ...

    def all_fit(self, count: int) -> bool:
        """Tell whether so many stay in memory."""
        ...


@dataclass(frozen=True)
class LeftEarly:
    """A candidate that was left: its partial scores, and why."""

    artifact: "Artifact"
    scores: SuiteScores
    saved: Saved
    because: str
    seconds: float


@dataclass
class SetScores:
    """What became of the candidates of one set: scores, partial scores, or a fault, by partition.

    `saved` counts what was asked now of what would have been asked. `note` says why all were asked
    everything, where early stopping was wanted and cannot be; `reduced` of the reduced set that was
    asked first, or why there was none.
    """

    scored: dict[str, ScoredCheckpoint] = field(default_factory=dict[str, ScoredCheckpoint])
    left: dict[str, LeftEarly] = field(default_factory=dict[str, LeftEarly])
    failed: dict[str, Exception] = field(default_factory=dict[str, Exception])
    saved: Saved = field(default_factory=lambda: Saved(0, 0))
    note: str = ""
    reduced: str = ""


@dataclass(frozen=True)
class SetPoints:
    """One expert set of one recipe: the partitions to score now, and all that are live.

    Both map partition keys to coefficients. `models`, and what the `recipes` made, have scores on
    the suite, perhaps.
    """

    recipe: str
    wanted: Mapping[str, str]
    live: Mapping[str, str]
    models: Sequence[str] = ()
    recipes: Sequence[str] = ()

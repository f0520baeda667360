"""Scores as the site shows them, read once: what the site before has read is taken from there."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assets.site.view import Cell, SplitScores, SuiteView
from assets.work.scoring.scoring import SCORES, open_scores
from eval_ops.errors import EvalError, PairingError
from resources.errors import DamagedArtifactError, MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from resources.store import ArtifactStore

READERS = 16
"""Scores read at once: what hides the way to a far store."""
DIGITS = 6
"""Of a share: a hundredth of a hundredth of a point."""

Splits = tuple[SplitScores | None, SplitScores | None]
"""Scores on test and on validation items."""


@dataclass
class SeenScores:
    """Scores by their digest; `problems` says what could not be read, by digest."""

    known: dict[str, Splits] = field(default_factory=dict[str, Splits])
    problems: dict[str, str] = field(default_factory=dict[str, str])

    def read(self, store: "ArtifactStore", wanted: Mapping[str, SuiteView]) -> None:
        """Read those of the `wanted` scores that are not known; each goes by its suite's order."""
        new = {digest: suite for digest, suite in wanted.items() if digest not in self.known}
        if not new:
            return

        def one(digest: str) -> Splits | str:
            try:
                scores = open_scores(store.get(SCORES, digest), checked=False)
                return split_scores(scores, new[digest])
            except (DamagedArtifactError, MissingArtifactError, EvalError) as error:
                return f"{type(error).__name__}: {error}"

        with ThreadPoolExecutor(READERS, "scores") as pool:
            for digest, found in zip(new, pool.map(one, new), strict=True):
                if isinstance(found, str):
                    self.problems[digest] = found
                else:
                    self.known[digest] = found


def split_scores(scores: "SuiteScores", suite: SuiteView) -> Splits:
    """Return the scores on test and on validation items, in the order of the suite's benchmarks."""
    names = [name for name, _ in suite.benchmarks]
    return _split(scores, names, "test"), _split(scores, names, "validation")


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Return numbers as they are written into a page."""
    return tuple(round(value, DIGITS) for value in values)


def _split(scores: "SuiteScores", names: list[str], split: str) -> SplitScores | None:
    found = {each.benchmark: each for each in scores.scores if each.split == split}
    if not found:
        return None
    cells: list[Cell | None] = []
    for name in names:
        score = found.get(name)
        value = rounded((score.value, score.low, score.high)) if score is not None else None
        cells.append((*value, score.n) if value is not None and score is not None else None)  # type: ignore[arg-type]
    try:
        mean = scores.mean(split)
    except PairingError:
        return SplitScores(tuple(cells), None)
    value, low, high = rounded((mean.value, mean.low, mean.high))
    return SplitScores(tuple(cells), (value, low, high))

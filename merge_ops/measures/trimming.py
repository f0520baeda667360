"""Task vectors trimmed by rank: what ties and breadcrumbs know of a tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from merge_ops.kernels.arithmetic import NOTHING, Band, count_of
from merge_ops.measures.measure import LEAF, Block, ModelMeasure, TensorJob, total
from merge_ops.measures.thresholds import (
    Threshold,
    ThresholdSearch,
    between,
    look_all,
    observe_all,
)
from merge_ops.measures.trimmed_blocks import TrimmedBlock

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Values

RankRange = tuple[int, int]
"""(k, outliers): of the k largest entries all but the `outliers` largest are kept."""

INSIDE_LIMIT = 1 << 24  # values held between two rounds, over all experts and densities: 64 MiB
TOGETHER = 8  # experts that are measured at once: what is held must not grow with their number
LARGE = 1 << 30  # elements from which on four times as many are held: 256 MiB
TOO_SMALL = 1e-7  # a sum below it scales nothing: mergekit's bound
L1_NORM, NONE = "l1_norm", "none"


def l1_factor(before: float, after: float) -> float:
    """How much kept entries must grow: Σ|δ| / Σ|kept δ|; one where either sum is below 1e-7."""
    return 1.0 if before < TOO_SMALL or after < TOO_SMALL else before / after


class TrimMeasure(ModelMeasure):
    """Trims every expert, for every point of a sweep; exact, in bounded memory.

    `ranges` has, for each coefficient, what each expert keeps, and `rescale` how to scale it. The
    thresholds are found first; where something is to be rescaled, one more round sums what is kept.
    Experts are measured a few at a time, so what is held does not grow with their number.
    """

    def __init__(
        self, job: TensorJob, ranges: Sequence[Sequence[RankRange]], rescale: Sequence[str]
    ) -> None:
        self._arithmetic = job.arithmetic
        self._count = job.count
        self._ranges = ranges
        self._rescale = rescale
        cuts = {(i, k) for point in ranges for i, kept in enumerate(point) for k in kept}
        cuts = sorted((i, k) for i, k in cuts if 0 < k < job.count)
        together = Counter(expert // TOGETHER for expert, _ in cuts)
        limit = INSIDE_LIMIT if job.count < LARGE else 4 * INSIDE_LIMIT
        limit //= max(together.values(), default=1)
        self._searches = {
            cut: ThresholdSearch(job.arithmetic, cut[1], job.count, limit) for cut in cuts
        }
        self._sums = {
            (i, kept)
            for point, how in zip(ranges, rescale, strict=True)
            for i, kept in enumerate(point)
            if how == L1_NORM and kept != (job.count, 0)
        }
        self._factors: dict[tuple[int, RankRange], float] = {}
        experts = range(len(ranges[0])) if cuts or self._sums else range(0)
        self._groups = [experts[at : at + TOGETHER] for at in experts[::TOGETHER]]
        self._next_group()

    @property
    def held(self) -> int:
        """How many magnitudes all searches hold between blocks."""
        return sum(search.held for search in self._searches.values())

    def look(self, inputs: Sequence[Values]) -> None:
        """The sample, one (n,) for each expert that is measured now, brackets every threshold."""
        for expert, cuts in self._open().items():
            searches = [self._searches[cut] for cut in cuts]
            look_all(self._arithmetic, searches, inputs[expert - self._first])

    def observe(self, block: Block) -> dict[Any, Any]:
        """What this block says to every open search; with none open, sums of what is kept."""
        said: dict[Any, Any] = {}
        open_ones = self._open()
        for expert, cuts in open_ones.items():
            searches = [self._searches[cut] for cut in cuts]
            seen = observe_all(self._arithmetic, searches, block.inputs[expert - self._first])
            said.update(zip(cuts, seen, strict=True))
        if not open_ones:
            leaf_sums = self._arithmetic.leaf_sums
            for expert, kept in self._sums_now():
                delta = block.inputs[expert - self._first]
                trimmed = self._trimmed(delta, block.index, expert, kept).made(self._arithmetic)
                said[expert, kept] = leaf_sums(delta, None, LEAF), leaf_sums(trimmed, None, LEAF)
        return said

    def absorb(self, observations: Iterable[dict[Any, Any]]) -> None:
        """Take one round in."""
        searching = [cut for cuts in self._open().values() for cut in cuts]
        sums = {} if searching else dict.fromkeys(self._sums_now(), (0.0, 0.0))
        for seen in observations:
            for cut in searching:
                self._searches[cut].take(seen[cut])
            for key, (before, after) in sums.items():
                sums[key] = total([seen[key][0]], before), total([seen[key][1]], after)
        for cut in searching:
            self._searches[cut].settle()
        self._factors |= {key: l1_factor(*both) for key, both in sums.items()}
        if not self._open() and not (searching and self._sums_now()):
            self._next_group()

    def at(self, block: Block, coefficient: int) -> list[TrimmedBlock]:
        """The task vectors of this block, trimmed."""
        rescaled = self._rescale[coefficient] == L1_NORM
        trimmed: list[TrimmedBlock] = []
        for expert, kept in enumerate(self._ranges[coefficient]):
            factor = self._factors.get((expert, kept), 1.0) if rescaled else 1.0
            delta = block.inputs[expert]
            trimmed.append(self._trimmed(delta, block.index, expert, kept, factor))
        return trimmed

    def _next_group(self) -> None:
        """Go on with the next few experts, or be done."""
        self.wanted = bool(self._groups)
        if not self._groups:
            return
        now = self._groups.pop(0)
        self.group = now
        cuts = [cut for cut in self._searches if cut[0] in now]
        self.sample = max((self._searches[cut].sample for cut in cuts), default=0)

    @property
    def _first(self) -> int:
        """The number of the first input in a block."""
        return self.group.start if self.group else 0

    def _open(self) -> dict[int, list[tuple[int, int]]]:
        """The cuts whose threshold is not known, by expert; of those that are measured now."""
        found: dict[int, list[tuple[int, int]]] = {}
        for cut, search in self._searches.items():
            if search.threshold is None and self.group and cut[0] in self.group:
                found.setdefault(cut[0], []).append(cut)
        return found

    def _sums_now(self) -> list[tuple[int, RankRange]]:
        return [each for each in sorted(self._sums) if self.group and each[0] in self.group]

    def _trimmed(
        self, delta: Values, block: int, expert: int, kept: RankRange, factor: float = 1.0
    ) -> TrimmedBlock:
        """An expert's block, trimmed to what is kept, and multiplied."""
        k, outliers = kept
        if k == outliers:
            return TrimmedBlock(delta, NOTHING)
        lower = None if k == self._count else self._threshold(expert, k)
        upper = self._threshold(expert, outliers) if outliers else None
        if lower is None and upper is None:
            return TrimmedBlock(delta)  # whole, and so its factor is one
        band = between(lower, upper, block, count_of(delta))
        return TrimmedBlock(delta, Band(*band[:-1], factor))

    def _threshold(self, expert: int, k: int) -> Threshold:
        threshold = self._searches[expert, k].threshold
        assert threshold is not None
        return threshold

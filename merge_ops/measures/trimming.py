"""Task vectors cut to a band of their magnitudes: what ties and breadcrumbs know of a tensor."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from merge_ops.kernels.values import on_cpu
from merge_ops.measures.cuts import Cut
from merge_ops.measures.measure import Block, ModelMeasure, ModelWide, TensorJob, leaf_sums, total
from merge_ops.measures.selection import Selection, Threshold, look_all, observe_all
from merge_ops.methods.parameters import Parameter, shared

if TYPE_CHECKING:
    from torch import Tensor

Band = tuple[int, int]
"""(k, outliers): of the k largest entries all but the `outliers` largest are kept."""

INSIDE_LIMIT = 1 << 24  # values held between two rounds, over all experts and densities: 64 MiB
TOGETHER = 8  # experts that are measured at once
LARGE = 1 << 30  # elements from which on four times as many are held: 256 MiB
TOO_SMALL = 1e-7
L1_NORM, NONE = "l1_norm", "none"
PER_TENSOR, GLOBAL = "per_tensor", "global"


def rescale_after_trimming() -> Any:
    """The parameter `rescale` of methods that trim."""
    return shared(
        "rescale",
        str,
        NONE,
        "l1_norm, or true, scales what is kept until Σ|δ| is as before",
        choices=(L1_NORM, NONE),
        aliases={True: L1_NORM, False: NONE},
    )


def trim_scope() -> Any:
    """The parameter `trim` of methods that trim."""
    meaning = "whether the largest entries are those of each tensor or of the whole model"
    spec = Parameter("trim", str, meaning, PER_TENSOR, choices=(PER_TENSOR, GLOBAL))
    return dataclasses.field(default=PER_TENSOR, metadata={"parameter": spec})


def _is_global(parameters: Any) -> bool:
    return parameters.trim == GLOBAL


def trimmed_globally(*same: str) -> ModelWide:
    """With `trim: global` the whole model is measured; `same` hold for all its tensors then."""
    return ModelWide("trim: global", _is_global, ("trim", *same))


def l1_factor(before: float, after: float) -> float:
    """Σ|δ| / Σ|kept δ|; one where either sum is below 1e-7."""
    return 1.0 if before < TOO_SMALL or after < TOO_SMALL else before / after


class BandMeasure(ModelMeasure):
    """Every expert cut to its band, for every point of a sweep; exact, in bounded memory.

    `bands` has, for each coefficient, one band for each expert, and `rescale` how to scale it. The
    thresholds are found first; where something is to be rescaled, one more round sums what is kept.
    Experts are measured a few at a time, so what is held does not grow with their number.
    """

    def __init__(
        self, job: TensorJob, bands: Sequence[Sequence[Band]], rescale: Sequence[str]
    ) -> None:
        self._count = job.count
        self._bands = bands
        self._rescale = rescale
        cuts = {(i, k) for each in bands for i, band in enumerate(each) for k in band}
        cuts = sorted((i, k) for i, k in cuts if 0 < k < job.count)
        together = Counter(expert // TOGETHER for expert, _ in cuts)
        limit = INSIDE_LIMIT if job.count < LARGE else 4 * INSIDE_LIMIT
        limit //= max(together.values(), default=1)
        self._selections = {cut: Selection(cut[1], job.count, limit) for cut in cuts}
        self._sums = {
            (i, band)
            for each, how in zip(bands, rescale, strict=True)
            for i, band in enumerate(each)
            if how == L1_NORM and band != (job.count, 0)
        }
        self._factors: dict[tuple[int, Band], float] = {}
        experts = range(len(bands[0])) if cuts or self._sums else range(0)
        self._groups = [experts[at : at + TOGETHER] for at in experts[::TOGETHER]]
        self._next_group()

    def look(self, inputs: Sequence[Tensor]) -> None:
        """Bracket every threshold."""
        for expert, cuts in self._open().items():
            look_all([self._selections[cut] for cut in cuts], on_cpu(inputs[expert - self._first]))

    def observe(self, block: Block) -> dict[Any, Any]:
        """What this block says to every open selection; with none open, sums of what is kept."""
        said: dict[Any, Any] = {}
        open_ones = self._open()
        for expert, cuts in open_ones.items():
            values = on_cpu(block.inputs[expert - self._first])
            found = observe_all([self._selections[cut] for cut in cuts], values)
            said.update(zip(cuts, found, strict=True))
        if not open_ones:
            for expert, band in self._sums_now():
                delta = block.inputs[expert - self._first]
                kept = self._cut(delta, block.index, expert, band).made()
                said[expert, band] = leaf_sums(delta), leaf_sums(kept)
        return said

    def absorb(self, observations: Iterable[dict[Any, Any]]) -> None:
        """Take one round in."""
        selecting = [cut for cuts in self._open().values() for cut in cuts]
        sums = {} if selecting else dict.fromkeys(self._sums_now(), (0.0, 0.0))
        for seen in observations:
            for cut in selecting:
                self._selections[cut].take(seen[cut])
            for key, (before, after) in sums.items():
                sums[key] = total([seen[key][0]], before), total([seen[key][1]], after)
        for cut in selecting:
            self._selections[cut].settle()
        self._factors |= {key: l1_factor(*both) for key, both in sums.items()}
        if not self._open() and not (selecting and self._sums_now()):
            self._next_group()

    def at(self, block: Block, coefficient: int) -> list[Cut]:
        """The task vectors of this block, cut."""
        rescaled = self._rescale[coefficient] == L1_NORM
        found: list[Cut] = []
        for expert, band in enumerate(self._bands[coefficient]):
            factor = self._factors.get((expert, band), 1.0) if rescaled else 1.0
            found.append(self._cut(block.inputs[expert], block.index, expert, band, factor))
        return found

    def _next_group(self) -> None:
        """Go on with the next few experts, or be done."""
        self.wanted = bool(self._groups)
        if not self._groups:
            return
        now = self._groups.pop(0)
        self.group = now
        cuts = [cut for cut in self._selections if cut[0] in now]
        self.sample = max((self._selections[cut].sample for cut in cuts), default=0)

    @property
    def _first(self) -> int:
        """The number of the first input in a block."""
        return self.group.start if self.group else 0

    def _open(self) -> dict[int, list[tuple[int, int]]]:
        """The cuts whose threshold is not known, by expert; of those that are measured now."""
        found: dict[int, list[tuple[int, int]]] = {}
        for cut, selection in self._selections.items():
            if selection.threshold is None and self.group and cut[0] in self.group:
                found.setdefault(cut[0], []).append(cut)
        return found

    def _sums_now(self) -> list[tuple[int, Band]]:
        return [each for each in sorted(self._sums) if self.group and each[0] in self.group]

    def _cut(self, delta: Tensor, block: int, expert: int, band: Band, factor: float = 1.0) -> Cut:
        """An expert's block, cut to the band and multiplied."""
        k, outliers = band
        if k == outliers:
            return Cut(delta, block, nothing=True)
        upper = self._known(expert, outliers) if outliers else None
        return Cut(delta, block, self._threshold(expert, k), upper, factor=factor)

    def _threshold(self, expert: int, k: int) -> Threshold | None:
        """That of the k largest; None where these are all."""
        return None if k == self._count else self._known(expert, k)

    def _known(self, expert: int, k: int) -> Threshold:
        threshold = self._selections[expert, k].threshold
        assert threshold is not None
        return threshold

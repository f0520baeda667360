"""Task vectors cut to a band of their magnitudes: what ties and breadcrumbs know of a tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from merge_ops.measure import Block, ModelWide, TensorJob, leaf_sums, total
from merge_ops.parameters import Parameter, shared
from merge_ops.selection import Selection, Threshold, keep_between, look_all, observe_all
from merge_ops.values import on_cpu, zeros_like

if TYPE_CHECKING:
    from torch import Tensor

Band = tuple[int, int]
"""(k, outliers): of the k largest entries all but the `outliers` largest are kept."""

INSIDE_LIMIT = 1 << 24  # values held between two rounds, over all experts and densities: 64 MiB
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


class BandMeasure:
    """Every expert cut to its band, for every point of a sweep; exact, in bounded memory.

    `bands` has, for each coefficient, one band for each expert, and `rescale` how to scale it. The
    thresholds are found first; where something is to be rescaled, one more round sums what is kept.
    """

    def __init__(
        self, job: TensorJob, bands: Sequence[Sequence[Band]], rescale: Sequence[str]
    ) -> None:
        self._count = job.count
        self._bands = bands
        self._rescale = rescale
        cuts = {(i, k) for each in bands for i, band in enumerate(each) for k in band}
        cuts = sorted((i, k) for i, k in cuts if 0 < k < job.count)
        limit = (INSIDE_LIMIT if job.count < LARGE else 4 * INSIDE_LIMIT) // max(1, len(cuts))
        self._selections = {cut: Selection(cut[1], job.count, limit) for cut in cuts}
        self._sums = {
            (i, band)
            for each, how in zip(bands, rescale, strict=True)
            for i, band in enumerate(each)
            if how == L1_NORM and band != (job.count, 0)
        }
        self._factors: dict[tuple[int, Band], float] = {}
        self.wanted = bool(cuts) or bool(self._sums)
        self.sample = max((each.sample for each in self._selections.values()), default=0)

    def look(self, inputs: Sequence[Tensor]) -> None:
        """Bracket every threshold."""
        for expert in {expert for expert, _ in self._selections}:
            cuts = [each for (whose, _), each in self._selections.items() if whose == expert]
            look_all(cuts, on_cpu(inputs[expert]))

    def observe(self, block: Block) -> dict[Any, Any]:
        """What this block says to every open selection; with none open, sums of what is kept."""
        open_ones = self._open()
        if open_ones:
            said: dict[Any, Any] = {}
            for expert in {expert for expert, _ in open_ones}:
                cuts = [cut for cut in open_ones if cut[0] == expert]
                selections = [self._selections[cut] for cut in cuts]
                found = observe_all(selections, on_cpu(block.inputs[expert]))
                said.update(zip(cuts, found, strict=True))
            return said
        return {
            (expert, band): (
                leaf_sums(block.inputs[expert]),
                leaf_sums(self._cut(block, expert, band)),
            )
            for expert, band in sorted(self._sums)
        }

    def absorb(self, observations: Iterable[dict[Any, Any]]) -> None:
        """Take one round in."""
        open_ones = self._open()
        if open_ones:
            for seen in observations:
                for cut in open_ones:
                    self._selections[cut].take(seen[cut])
            for cut in open_ones:
                self._selections[cut].settle()
            self.wanted = bool(self._open()) or bool(self._sums)
            return
        sums = dict.fromkeys(self._sums, (0.0, 0.0))
        for seen in observations:
            for key, (before, after) in sums.items():
                sums[key] = total([seen[key][0]], before), total([seen[key][1]], after)
        self._factors = {key: l1_factor(*both) for key, both in sums.items()}
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[Tensor]:
        """The cut task vectors of this block; an uncut one is the input itself."""
        how = self._rescale[coefficient]
        return [
            self._scaled(block, expert, band, how)
            for expert, band in enumerate(self._bands[coefficient])
        ]

    def _open(self) -> list[tuple[int, int]]:
        return [cut for cut, each in self._selections.items() if each.threshold is None]

    def _scaled(self, block: Block, expert: int, band: Band, how: str) -> Tensor:
        kept = self._cut(block, expert, band)
        factor = self._factors.get((expert, band), 1.0) if how == L1_NORM else 1.0
        if factor != 1:
            kept *= factor
        return kept

    def _cut(self, block: Block, expert: int, band: Band) -> Tensor:
        delta, (k, outliers) = block.inputs[expert], band
        if k == outliers:
            return zeros_like(delta)
        if not outliers:
            return self._largest(block, expert, k)
        return keep_between(
            delta, block.index, self._threshold(expert, k), self._known(expert, outliers)
        )

    def _largest(self, block: Block, expert: int, k: int) -> Tensor:
        """The block with all but the tensor's k largest entries set to zero."""
        threshold = self._threshold(expert, k)
        delta = block.inputs[expert]
        return delta if threshold is None else threshold.apply(delta, block.index)

    def _threshold(self, expert: int, k: int) -> Threshold | None:
        """That of the k largest; None where these are all."""
        return None if k == self._count else self._known(expert, k)

    def _known(self, expert: int, k: int) -> Threshold:
        threshold = self._selections[expert, k].threshold
        assert threshold is not None
        return threshold

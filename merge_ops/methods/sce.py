"""sce: select where the experts differ, calculate their weights, erase what disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.kernels.arithmetic import NOTHING, Arithmetic, Band
from merge_ops.measures.measure import LEAF, Block, Measure, TensorJob, total
from merge_ops.measures.thresholds import ThresholdSearch, look_all, observe_all
from merge_ops.measures.trimming import INSIDE_LIMIT
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Values

SMALL = 1e-6  # mergekit's bound: of a sum of weights, and of the mean squares they follow from
TINIEST = 2.0**-149  # the smallest float32 above zero


@dataclass(frozen=True)
class SceParameters:
    """`select_topk` of the entries on which the experts differ are merged."""

    select_topk: float = shared(
        "select_topk",
        float,
        1.0,
        "the share of entries kept, those of largest variance across experts",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class Selected:
    """Which entries of a block are selected, and the experts' weights.

    Those whose variance, shape (n,), is within the band; all where there is no variance.
    """

    weights: Sequence[float]
    variance: Values | None
    band: Band

    def keep(self, arithmetic: Arithmetic, values: Values) -> Values:
        """`values`, shape (n,), where they are selected, zero elsewhere."""
        if self.variance is None:
            return values
        return arithmetic.keep_band(self.variance, self.band, values)


def selected_count(nonzero: int, share: float) -> int:
    """⌊share · nonzero⌋ as mergekit rounds it: the product in float32."""
    return min(nonzero, int(np.float32(nonzero) * np.float32(share)))


@dataclass(frozen=True)
class _Near:
    """Of one block and share: Σδ² by leaf of what is surely selected, and what may be.

    `said` is for the search. `picked` has the variance and the deltas of the `count` entries
    that may be selected, in order; it is None where there is too much of it.
    """

    sums: Sequence[NDArray[np.float64]]
    said: Any
    count: int
    picked: NDArray[np.float32] | None


class VarianceMeasure(Measure):
    """The variance threshold of every share, and Σδ² over what is selected: the weights.

    The share is one of the entries that differ at all, and their number is known only after the
    first round. Until then the sample's estimate serves to bracket the threshold. That round also
    sums what lies above the bracket, and hands over what lies within: so the weights are known as
    soon as the threshold is. If the sample misled, or too much lies within (64 MiB, all shares
    together), one more round sums what is selected. Which it is does not depend on the blocks, as
    the sample does not.
    """

    def __init__(self, job: TensorJob, parameters: Sequence[SceParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._count = job.count
        self._experts = len(job.inputs)
        self._topk = [each.select_topk for each in parameters]
        shares = sorted({share for share in self._topk if share < 1})
        # A value is held by its search, and with all its deltas.
        self._limit = INSIDE_LIMIT // (max(1, len(shares)) * (self._experts + 2))
        self._searches = {
            share: ThresholdSearch(
                job.arithmetic, max(1, int(share * job.count)), job.count, self._limit
            )
            for share in shares
        }
        self._counted = False
        self._weights: dict[float, list[float]] = {}
        self._held = dict.fromkeys(shares, 0)
        self._lock = Lock()
        self.wanted = True
        self.sample = max((each.sample for each in self._searches.values()), default=0)

    def look(self, inputs: Sequence[Values]) -> None:
        """The sample, one (n,) for each expert, brackets every threshold."""
        spread, differing = self._arithmetic.variance(inputs)
        for share, search in self._searches.items():
            search.k = max(1, int(share * (differing / max(1, spread.shape[0])) * self._count))
        look_all(self._arithmetic, list(self._searches.values()), spread)

    def observe(self, block: Block) -> dict[Any, Any]:
        """What this block says to every open search, and in the first round to the weights.

        With no search open, Σδ² of what is kept where weights are not known.
        """
        waiting = self._open()
        if self._counted and not waiting:
            return {share: self._sums(block, share) for share in self._unweighted()}
        spread, differing = self._arithmetic.variance(block.inputs)
        if self._counted:
            searches = [self._searches[share] for share in waiting]
            said = observe_all(self._arithmetic, searches, spread)
            return dict(zip(waiting, said, strict=True))
        found = {share: self._near(block, spread, share) for share in self._unweighted()}
        return {"differing": differing, **found}

    def absorb(self, observations: Sequence[dict[Any, Any]]) -> None:
        """Take one round in."""
        waiting = self._open()
        if self._counted and not waiting:
            for share in self._unweighted():
                self._weigh(share, [seen[share] for seen in observations])
        elif self._counted:
            for share in waiting:
                self._searches[share].absorb([seen[share] for seen in observations])
        else:
            differing = sum(seen["differing"] for seen in observations)
            self._counted = True
            for share, search in self._searches.items():
                search.k = selected_count(differing, share)
                if search.k:
                    search.absorb([seen[share].said for seen in observations])
            for share in self._unweighted():
                self._weigh_near(share, [seen[share] for seen in observations])
        self.wanted = bool(self._unweighted())

    def at(self, block: Block, coefficient: int) -> Selected:
        """The selected entries of this block."""
        share = self._topk[coefficient]
        spread = self._arithmetic.variance(block.inputs)[0] if share < 1 else None
        return self._selected(block, share, spread, self._weights[share])

    def _selected(
        self, block: Block, share: float, spread: Values | None, weights: Sequence[float] = ()
    ) -> Selected:
        threshold = self._searches[share].threshold if share < 1 else None
        return Selected(weights, spread, threshold.band(block.index) if threshold else NOTHING)

    def _open(self) -> list[float]:
        """The shares whose threshold is not known; none is needed where nothing is selected."""
        return [share for share, each in self._searches.items() if not each.threshold and each.k]

    def _unweighted(self) -> list[float]:
        return [share for share in sorted(set(self._topk)) if share not in self._weights]

    def _sums(self, block: Block, share: float) -> list[NDArray[np.float64]]:
        """Σδ² by leaf of what is selected, for every expert."""
        chosen = self._selected(block, share, self._arithmetic.variance(block.inputs)[0])
        kept = [chosen.keep(self._arithmetic, delta) for delta in block.inputs]
        return self._squares(kept)

    def _squares(self, deltas: Sequence[Values]) -> list[NDArray[np.float64]]:
        """Σδ² by leaf of every expert, each of shape (n,)."""
        return [self._arithmetic.leaf_sums(delta, delta, LEAF) for delta in deltas]

    def _near(self, block: Block, spread: Values, share: float) -> _Near:
        bracket = self._searches[share].bracket if share < 1 else None
        if bracket is None:
            return _Near(self._squares(block.inputs), None, 0, None)
        # Entries that do not differ are never selected.
        low, high = max(bracket[0], TINIEST), bracket[1]
        picked = self._arithmetic.pick_between(spread, low, high, block.inputs)
        sums, above = self._arithmetic.squares_above(block.inputs, spread, high, LEAF)
        said = self._searches[share].seen_near(above, picked[0])
        with self._lock:
            self._held[share] += len(picked[0])
            fits = self._held[share] <= self._limit
        return _Near(sums, said, len(picked[0]), picked if fits else None)

    def _weigh_near(self, share: float, seen: Sequence[_Near]) -> None:
        """The weights after the first round, if that was enough."""
        sums = [each.sums for each in seen]
        if share >= 1:
            return self._weigh(share, sums)
        search = self._searches[share]
        if not search.k:
            self._weights[share] = _weights([0.0] * self._experts)
        threshold = search.threshold
        if threshold is None or sum(each.count for each in seen) > self._limit:
            return None
        variances, *deltas = np.concatenate([cast(Any, each.picked) for each in seen], axis=1)
        chosen = variances > np.float32(threshold.value)
        equal = np.flatnonzero(variances == np.float32(threshold.value))
        chosen[equal[: sum(threshold.ties)]] = True
        some = [self._arithmetic.from_host(delta[chosen]) for delta in deltas]
        return self._weigh(share, [*sums, self._squares(some)])

    def _weigh(self, share: float, sums: Sequence[Sequence[NDArray[np.float64]]]) -> None:
        leaves = zip(*sums, strict=True)
        self._weights[share] = _weights([total(each) / self._count for each in leaves])


def _weights(means: Sequence[float]) -> list[float]:
    """The mean squares, divided by their sum; equal where that is below 1e-6."""
    whole = sum(means)
    return [1 / len(means) if whole < SMALL else each / whole for each in means]


@merge_method(
    "sce",
    parameters=SceParameters,
    sees="task_vectors",
    span="element",
    family="weighted",
    source="arXiv:2408.07990",
    arrays=True,
    version=2,
    measure=VarianceMeasure,
    at_least=2,
    unused=("int8_mask",),
)
def sce(
    deltas: Sequence[Values],
    selected: Selected,
    parameters: SceParameters,
    arithmetic: Arithmetic,
) -> Values:
    """δ = Σ wᵢδᵢ / Σ wᵢ over the experts that agree with the sign of Σ δᵢ, on selected entries.

    Wan et al. 2024, "FuseChat", https://arxiv.org/abs/2408.07990. Selected are the
    ⌊select_topk · m⌋ entries of largest variance across experts, m being those that differ at all;
    wᵢ is the mean square of what is left of δᵢ. As in mergekit, and unlike the paper: where these
    mean squares sum to less than 1e-6, as those of lightly fine-tuned experts do, all weights are
    equal; and Σ wᵢ counts as at least 1e-6. Equal variances are selected from the lowest index on.
    """
    weights = selected.weights
    ones, whole = [1.0] * len(weights), [None] * len(weights)
    merged = arithmetic.disjoint_merge(deltas, whole, ones, weights, weights, SMALL, 1.0)
    return selected.keep(arithmetic, merged)

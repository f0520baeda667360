"""A mixture's moe_experts in the order of its base's, and the neurons in each of them.

Two mixtures that were trained apart, or one whose moe_experts were put in another order, have at
one number moe_experts that do different things; their mean does neither. Router rows go with their
moe_experts, so that the model stays the same function. Which is whose follows from router rows and
weights together (an assignment over all moe_experts of a layer), and inside a pair neurons go to
their likest, as M-SMoE does before it merges (2310.01334).
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.arrangement.mixtures.expert_layers import (
    DOWN,
    ExpertLayer,
    ExpertLayers,
    read_layers,
    shapes_of,
    with_overlays,
)
from merge_ops.arrangement.mixtures.expert_sketches import WIDTH, LayerSketch, sketched
from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    DigestOf,
    Fetch,
    RearrangedTensor,
    TensorSource,
    source_of,
)
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.kernels.linear_algebra import linear_algebra_kind
from merge_ops.symmetries.aligned_tensors import NEAR
from merge_ops.symmetries.matching import assigned_in_groups, match_rows
from merge_ops.symmetries.monomial import in_order
from merge_ops.symmetries.symmetry import Change, TransformedTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.calibration.moe_orders import Orders

    Order = NDArray[np.int64]

VERSION = 1


@dataclass(frozen=True, eq=False)
class LayerOrder:
    """A layer order says which moe_expert comes where, (E,), and in each which neuron, (I,)."""

    experts: Order
    neurons: tuple[Order, ...]


@dataclass(eq=False)
class ExpertAligner:
    """An expert aligner finds the orders of all layers when it is first asked, layer by layer.

    Each moe_expert of both models is read once for it; sketches of one layer are held at a time.
    Who kept what an aligner with the same `key` had found gives it back by `take`.
    """

    base: ExpertLayers
    model: ExpertLayers
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _found: Mapping[str, LayerOrder] | None = None

    def order(self, at: str, fetch: Fetch) -> LayerOrder:
        """Return the order of a layer.

        Raises CompatibilityError where a layer stays far from the base's.
        """
        with self._lock:
            if self._found is None:
                self._found = self._find(fetch)
        return self._found[at]

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return what decides the orders."""
        pair = [digest_of(each.model) for each in (self.base, self.model)]
        return ["moe_experts aligned", VERSION, linear_algebra_kind(), *pair]

    def key(self, digest_of: DigestOf) -> str | None:
        """Return the digest of what the orders are found from; None where it is not known."""
        if any(digest_of(each.model) is None for each in (self.base, self.model)):
            return None
        return blake3.blake3(json.dumps(self.identity(digest_of)).encode()).hexdigest()

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Return how many moe_experts each layer has, and of how many neurons."""
        return {at: (parts[0], parts[1][0]) for at, parts in shapes_of(self.model)}

    @property
    def found(self) -> Orders | None:
        """Return the orders that were found or taken, of moe_experts and neurons; else None."""
        if self._found is None:
            return None
        return {at: (each.experts, np.stack(each.neurons)) for at, each in self._found.items()}

    def take(self, orders: Orders) -> None:
        """Take orders that were found before, of all layers."""
        with self._lock:
            self._found = {
                at: LayerOrder(order[0], tuple(order[1])) for at, order in orders.items()
            }

    def _find(self, fetch: Fetch) -> Mapping[str, LayerOrder]:
        found: dict[str, LayerOrder] = {}
        for at, layer in self.model.layers.items():
            ours = sketched(self.base.model, self.base.layers[at], fetch)
            theirs = sketched(self.model.model, layer, fetch)
            found[at], nearest = layer_order(ours, theirs, layer.groups)
            if nearest > NEAR:
                problem = (
                    f"stays in {at}* at ‖model − base‖ / ‖base‖ = {nearest:.2f} from"
                    f" {self.base.model.name} in whatever order its moe_experts are: it has another"
                    " origin, or was changed in other ways too. Nothing was written"
                )
                raise CompatibilityError("align: base", [Fault(self.model.model.name, problem)])
        return found


def layer_order(ours: LayerSketch, theirs: LayerSketch, groups: int) -> tuple[LayerOrder, float]:
    """Return the order of a model's layer that is nearest to the base's, and how near that is.

    It is the order that the model has where no other brings it nearer. The distance is
    ‖model − base‖ / ‖base‖ over moe_experts and router, as sketches show it.
    """
    count, inner = ours.neurons.shape[:2]
    as_it_is = LayerOrder(_as_they_are(count), (_as_they_are(inner),) * count)
    experts = assigned_in_groups(ours.alike(theirs), groups)
    neurons = [
        _neuron_order(mine, theirs.neurons[other])
        for mine, other in zip(ours.neurons, experts, strict=True)
    ]
    order = LayerOrder(experts, tuple(neurons))
    before, after = (_off(ours, theirs, each) for each in (as_it_is, order))
    size = _square(ours.neurons) + WIDTH * _square(ours.router)
    nearest = math.sqrt(min(before, after) / size) if size else 0.0
    return (order if after < before else as_it_is), nearest


def _neuron_order(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Order:
    """Which neuron of theirs comes where one of ours is; as they are where that is as near."""
    first, second = (_parts_alike(each) for each in (ours, theirs))
    found = match_rows(first, second).index
    nearer = _square(theirs[found] - ours) < _square(theirs - ours)
    return found if nearer else _as_they_are(len(ours))


def _as_they_are(count: int) -> Order:
    return np.arange(count, dtype=np.int64)


def _parts_alike(sketch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sketches of gate, up and down at length 1 each, so that no large one decides alone."""
    parts = sketch.reshape(len(sketch), -1, WIDTH)
    lengths = np.linalg.norm(parts, axis=2, keepdims=True)
    at_length_one = parts / np.where(lengths > 0, lengths, 1.0)
    return at_length_one.reshape(len(sketch), -1).astype(np.float32, copy=False)


def _off(ours: LayerSketch, theirs: LayerSketch, order: LayerOrder) -> float:
    pairs = zip(ours.neurons, order.experts, order.neurons, strict=True)
    total = sum(_square(theirs.neurons[other][index] - mine) for mine, other, index in pairs)
    return total + WIDTH * _square(theirs.router[order.experts] - ours.router)


def _square(values: NDArray[np.float32]) -> float:
    flat = values.reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class _Aligned(RearrangedTensor):
    """What an aligned tensor is known by: the digests of both models, and its own."""

    aligner: ExpertAligner
    at: str

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return what decides the order, and the tensor's own identity."""
        return [*self.aligner.identity(digest_of), self.own.identity(digest_of)]


@dataclass(frozen=True, eq=False)
class AlignedRows(_Aligned):
    """Aligned rows are a router's, each where its moe_expert comes to lie."""

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        rows = in_order(self.aligner.order(self.at, fetch).experts)
        TransformedTensor(self.own, Change(rows, None)).fill(fetch, start, into)


@dataclass(frozen=True, eq=False)
class AlignedExpert(_Aligned):
    """An aligned moe_expert's tensor is that of the one that comes here, its neurons in order.

    `own` is the tensor that lies at `number`, `members` are those of all moe_experts.
    """

    number: int
    down: bool
    members: tuple[TensorSource, ...]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        order = self.aligner.order(self.at, fetch)
        neurons = in_order(order.neurons[self.number])
        source = self.members[int(order.experts[self.number])]
        if not neurons.is_identity and not (self.down and len(self.shape) == 1):
            change = Change(None, neurons) if self.down else Change(neurons, None)
            source = TransformedTensor(source, change)
        source.fill(fetch, start, into)


def expert_aligner(model: Checkpoint, base: Checkpoint) -> ExpertAligner:
    """Return what finds the order of a mixture's moe_experts by its base's; nothing is read yet.

    Raises CompatibilityError where one of them has moe_experts that cannot change places, or both
    have others.
    """
    ours, theirs = read_layers(base), read_layers(model)
    faults = list(_differences(ours, theirs))
    if faults:
        raise CompatibilityError("align: base", faults)
    return ExpertAligner(ours, theirs)


def with_aligned_experts(aligner: ExpertAligner) -> Checkpoint:
    """Return the mixture with its moe_experts in the base's order, found when a tensor is read."""
    theirs = aligner.model
    overlays: dict[str, TensorSource] = {}
    for at, layer in theirs.layers.items():
        overlays |= {
            name: AlignedRows(_source(theirs.model, name), aligner, at) for name in layer.rows
        }
        overlays |= _aligned_experts(aligner, at, layer)
    return with_overlays(theirs, overlays)


def _aligned_experts(
    aligner: ExpertAligner, at: str, layer: ExpertLayer
) -> Mapping[str, TensorSource]:
    found: dict[str, TensorSource] = {}
    for part, bias in sorted({(part, bias) for _, part, bias in layer.names}):
        names = [layer.names[number, part, bias] for number in range(layer.experts)]
        members = tuple(_source(aligner.model.model, name) for name in names)
        for number, name in enumerate(names):
            found[name] = AlignedExpert(members[number], aligner, at, number, part == DOWN, members)
    return found


def _differences(base: ExpertLayers, model: ExpertLayers) -> list[Fault]:
    ours, theirs = dict(shapes_of(base)), dict(shapes_of(model))
    return [
        Fault(
            f"{model.model.name}: {at}*",
            f"has moe_experts of {theirs.get(at, 'no shape')}, and {base.model.name} of"
            f" {ours.get(at, 'no shape')} (how many; gate, up, down): only equal ones are matched",
        )
        for at in dict.fromkeys([*ours, *theirs])
        if ours.get(at) != theirs.get(at)
    ]


def _source(model: Checkpoint, name: str) -> TensorSource:
    found = source_of(model, name)
    assert found is not None  # names come from the model's own tensors
    return found

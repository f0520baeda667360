"""blockmerge: two checkpoints blended, by a gradient over their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.checkpoints.names.depth import Position
from merge_ops.errors import Fault
from merge_ops.measures.combination import WeightedSum
from merge_ops.methods.parameters import REQUIRED, shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class BlockmergeParameters:
    """`gradient_values` run over the tensors in their order, not over the layers."""

    gradient_values: tuple[float, ...] = shared(
        "gradient_values", float, REQUIRED, "the other model's shares", is_list=True
    )
    layer_only: bool = shared("layer_only", bool, False, "blend the tensors of layers alone")
    no_layers: bool = shared("no_layers", bool, False, "blend the tensors outside layers alone")


@dataclass(frozen=True)
class Blend:
    """The share of the other model in one tensor."""

    share: float


def _check(parameters: BlockmergeParameters) -> Fault | None:
    if parameters.layer_only and parameters.no_layers:
        return Fault("parameters.no_layers", "contradicts layer_only; set at most one to true")
    return None


def blend_at(parameters: BlockmergeParameters, at: Position) -> Blend:
    """The share for one tensor. What is not blended stays the base's, and does not count."""
    only = parameters.layer_only or parameters.no_layers
    if only and parameters.layer_only != at.in_layer:
        return Blend(0.0)
    number, count = (at.position_in_kind, at.count_of_kind) if only else (at.position, at.count)
    return Blend(share_at(parameters.gradient_values, number, count))


def share_at(values: Sequence[float], position: int, count: int) -> float:
    """Tensor `position` of `count`: sections of ⌊count / (values − 1)⌋ tensors, each from one value
    to the next, both included; what remains at the end has the last value."""
    sections = len(values) - 1
    length = count // sections if sections else 0
    if position >= length * sections:
        return values[-1]
    section, step = divmod(position, length)
    first, last = values[section], values[section + 1]
    return first + (last - first) * step / (length - 1) if length > 1 else first


@merge_method(
    "blockmerge",
    parameters=BlockmergeParameters,
    sees="checkpoints",
    span="element",
    family="basic",
    source="https://github.com/Gryphe/BlockMerge_Gradient",
    arrays=True,
    exactly=2,
    check=_check,
    at_position=blend_at,
)
def blockmerge(
    checkpoints: Sequence[Values], _: None, parameters: Blend, arithmetic: Arithmetic
) -> WeightedSum:
    """θ = (1 − r) a + r b, a the base and b the other model, r from `gradient_values` by the
    tensor's position among all.

    Gryphe 2023, "BlockMerge_Gradient", https://github.com/Gryphe/BlockMerge_Gradient. There the
    order is that of the model's state_dict. A checkpoint file does not keep it, so here it follows
    from the names: embeddings, layers by number and within a layer by name, then the rest. A tensor
    is in a layer by its place in a stack of layers, there wherever its name contains "layer".
    Vocabularies must agree; there common rows are blended.

    Both blocks are (n,); the result is (n,).
    """
    first, second = checkpoints
    return WeightedSum((first, second), (1 - parameters.share, parameters.share))

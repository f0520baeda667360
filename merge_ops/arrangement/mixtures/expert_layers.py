"""The MLPs of a mixture that choose moe_experts: their matrices, and every row that goes with one.

Only mixtures are read whose moe_experts may change places: whose every tensor that belongs to one
is known, and whose routing treats all of a group alike.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.arrangement.mixtures.layouts import (
    FUSED,
    as_stored,
    axis_faults,
    laid_out,
    layouts_in,
)
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.config_levels import TEXT_LEVELS
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.sources.fused_layouts import LAYOUTS, FusedLayout, is_router, model_types, router_of

GATE, UP, DOWN = range(3)
ONE_OF_A_LAYER = tuple[int, int, bool]
"""A tensor of a moe_expert: its number, gate, up or down, and whether it is the bias."""

_GROUPED = {"deepseek_v2": 1, "deepseek_v3": 8, "glm4_moe": 1}
"""Families that limit a token to some groups, and how many groups there are where none are told."""
FAMILIES: Mapping[str, FusedLayout] = {
    **LAYOUTS,
    "deepseek": LAYOUTS["deepseek_v2"],  # the code on the Hub, which has the same names
}
"""Families whose router is one row for each moe_expert and a choice of the highest. A test has the
logits of each after its moe_experts changed places.
"""
_EXPERTS = re.compile(r"(?:^|\.)experts\.")


@dataclass(frozen=True)
class ExpertLayer:
    """An expert layer has the names of one MLP's tensors: each moe_expert's, and the router's.

    `router` is the matrix, (experts, hidden); `rows` are all tensors with a row for each moe_expert
    (the matrix, biases that are added to scores). Moe_experts of one group may change places, and
    whole groups may; `groups` of equal size lie one behind the other.
    """

    names: Mapping[ONE_OF_A_LAYER, str]
    router: str
    rows: tuple[str, ...]
    experts: int
    groups: int


@dataclass(frozen=True)
class ExpertLayers:
    """Expert layers are those of a model, by what stands before their names.

    In `model` the moe_experts lie one by one; `fused` says that they were fused.
    """

    model: Checkpoint
    layout: FusedLayout
    fused: bool
    layers: Mapping[str, ExpertLayer]

    def as_it_was(self, made: Checkpoint) -> Checkpoint:
        """Return a model with such tensors in the layout that this one had."""
        return laid_out(made, self.layout, one_by_one=False) if self.fused else made


def family_of(config: Mapping[str, Any]) -> str | None:
    """Return which of the FAMILIES a config names, or None."""
    return next((each for each in model_types(config) if each in FAMILIES), None)


def read_layers(model: Checkpoint) -> ExpertLayers:
    """Read the MLPs of a mixture from its headers.

    Raises CompatibilityError where its family is not known here, a tensor of its moe_experts or
    router has no known place, or a layer is not whole.
    """
    kind = family_of(model.config)
    if kind is None:
        named = model.config.get("model_type")
        problem = f"has model_type {named!r}; moe_experts are put in order of {', '.join(FAMILIES)}"
        raise _refusal(model, [Fault("config.json", problem)])
    layout, pattern = as_stored(model, FAMILIES[kind]), router_of(model.config)
    assert pattern is not None  # every family has one
    kinds = layouts_in(model, layout)
    if len(kinds) != 1:
        told = "both fused and one by one; `convert: one_by_one` first" if kinds else "nowhere"
        raise _refusal(model, [Fault(model.name, f"has moe_experts {told}")])
    fused = kinds == {FUSED}
    if fused and (faults := axis_faults(model, layout)):
        raise _refusal(model, faults)
    single = laid_out(model, layout, one_by_one=True) if fused else model
    names: dict[str, dict[ONE_OF_A_LAYER, str]] = {}
    rows: dict[str, list[str]] = {}
    others: list[str] = []
    for name in single.tensors:
        found = layout.single.fullmatch(name)
        if found:
            key = int(found["number"]), layout.parts.index(found["part"]), found["kind"] == "bias"
            names.setdefault(found["at"], {})[key] = name
        elif is_router(pattern, name) and (place := pattern.search(name)):
            rows.setdefault(name[: place.start() + 1] if place.start() else "", []).append(name)
        else:
            others.append(name)
    modules = {name.rpartition(".")[0] for each in rows.values() for name in each}
    faults = [
        Fault(name, f"has no known place among the moe_experts and routers of {kind}")
        for name in others
        if _EXPERTS.search(name) or name.rpartition(".")[0] in modules
    ]
    groups = _groups(kind, model.config)
    layers: dict[str, ExpertLayer] = {}
    for at, tensors in names.items():
        found = _layer(single, layout, tensors, rows.get(at, []), groups)
        if isinstance(found, ExpertLayer):
            layers[at] = found
        else:
            faults.append(Fault(f"{model.name}: {at}*", found))
    if faults:
        raise _refusal(model, faults)
    return ExpertLayers(single, layout, fused, layers)


def _groups(kind: str, config: Mapping[str, Any]) -> int:
    """How many groups the routing limits a token to some of; 1 where it does not."""
    if kind not in _GROUPED:
        return 1
    own = config
    for key in TEXT_LEVELS:
        if "n_group" not in own and isinstance(config.get(key), dict | Mapping):
            own = cast("Mapping[str, Any]", config[key])
    if kind == "deepseek_v2" and own.get("topk_method", "greedy") == "greedy":
        return 1
    groups = own.get("n_group", _GROUPED[kind])
    return groups if type(groups) is int and groups > 0 else 1


def _layer(
    model: Checkpoint,
    layout: FusedLayout,
    names: Mapping[ONE_OF_A_LAYER, str],
    rows: list[str],
    groups: int,
) -> ExpertLayer | str:
    """The layer, or what is wrong with it."""
    count = 1 + max(number for number, _, _ in names)
    kinds = [(part, False) for part in range(3)]
    kinds += [(part, True) for part in range(3) if layout.biases]
    for part, bias in kinds:
        found = [names.get((number, part, bias)) for number in range(count)]
        tensors = [model.tensors[name] for name in found if name]
        told = f"{layout.parts[part]}.{'bias' if bias else 'weight'}"
        if len(tensors) < count:
            return f"has no {told} for moe_expert {found.index(None)} of {count}"
        if len({each.shape for each in tensors}) > 1 or len({e.dtype for e in tensors}) > 1:
            return f"has a {told} of other shapes or dtypes in some moe_experts"
        if tensors[0].dtype not in FLOAT_DTYPES:
            return f"has a {told} of {tensors[0].dtype}, which is no float"
    matrices = [name for name in rows if len(model.tensors[name].shape) == 2]
    if len(matrices) != 1:
        return f"has {len(matrices)} matrices of a router, and not one"
    wrong = [name for name in rows if model.tensors[name].shape[:1] != (count,)]
    if wrong:
        shape = list(model.tensors[wrong[0]].shape)
        return f"has {count} moe_experts, and '{wrong[0]}' has shape {shape}: not a row for each"
    width = model.tensors[names[0, GATE, False]].shape[1:]
    if model.tensors[matrices[0]].shape[1:] != width:
        return f"has a router of {model.tensors[matrices[0]].shape[1:]} columns, not {width}"
    if count % groups:
        return f"has {count} moe_experts, which are no {groups} equal groups (n_group)"
    return ExpertLayer(names, matrices[0], tuple(rows), count, groups)


Shapes = tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""How many moe_experts a layer has, and the shapes of their gate, up and down."""


def shapes_of(layers: ExpertLayers) -> Iterator[tuple[str, Shapes]]:
    """Yield for each layer what stands before its names, with its moe_experts and their shapes."""
    for at, layer in layers.layers.items():
        gate, up, down = (
            layers.model.tensors[layer.names[0, part, False]].shape for part in (GATE, UP, DOWN)
        )
        yield at, (layer.experts, gate, up, down)


def with_overlays(layers: ExpertLayers, overlays: Mapping[str, Any]) -> Checkpoint:
    """Return the model with some tensors computed while they are read, laid out as it was."""
    model = layers.model
    made = dataclasses.replace(model, overlays={**model.overlays, **overlays})
    return layers.as_it_was(made)


def _refusal(model: Checkpoint, faults: list[Fault]) -> CompatibilityError:
    subject = f"the moe_experts of '{model.name}' cannot be put in another order"
    return CompatibilityError(subject, faults)

"""A mixture with fewer moe_experts a layer: the same tensors under new numbers, or means of them.

Layout and names stay as the model has them, fused or one by one. Nothing is read for it: what is
kept is read as it lies, and means are computed while they are read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from merge_ops.arrangement.mixtures.fewer_cautions import fewer_cautions
from merge_ops.arrangement.mixtures.fewer_choice import Group, groups_of
from merge_ops.arrangement.mixtures.fewer_routers import RouterNumbers
from merge_ops.arrangement.mixtures.fewer_tensors import MeanTensor
from merge_ops.arrangement.mixtures.layouts import FUSED, axis_faults, laid_out, layouts_in
from merge_ops.arrangement.mixtures.matched_neurons import MatchedNeurons
from merge_ops.calibration.degenerate import spans
from merge_ops.calibration.moe_statistics import MoeStatistics
from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    Stored,
    TensorSource,
    source_of,
    unstored_entry,
)
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import natural_key
from merge_ops.errors import Caution, Fault
from merge_ops.recipes.structures.moe_fewer import ALL, MEAN, FewerStep
from merge_ops.sources.fused_layouts import FusedLayout, is_router, layout_of, router_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.arrangement.mixtures.fewer_routers import Groups

COUNTS = {
    "mixtral": ("num_local_experts",),
    "qwen2_moe": ("num_experts",),
    "qwen3_moe": ("num_experts", "num_local_experts"),
}
"""Families whose routers and moe_experts are known here, and their config's names of E."""
PER_TOKEN = "num_experts_per_tok"
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_PARTS = 3  # gate, up and down


@dataclasses.dataclass(frozen=True)
class _Mixture:
    """A model one by one: by layer the router, and the names by moe_expert and part.

    With `neurons` members of a group are brought into one order before they are merged.
    """

    model: Checkpoint
    layout: FusedLayout
    fused: bool
    routers: Mapping[int, str]
    names: Mapping[int, Mapping[tuple[int, str], str]]
    neurons: MatchedNeurons | None = None

    @property
    def experts(self) -> int:
        """The moe_experts of a layer, all of which have as many."""
        return len(next(iter(self.names.values()))) // _PARTS


def fewer(
    model: Checkpoint,
    step: FewerStep,
    statistics: MoeStatistics | None,
    rows: Mapping[int, NDArray[np.float32]] | None = None,
    subject: str = "",
) -> tuple[Checkpoint, tuple[Caution, ...], list[Fault]]:
    """Return a mixture with fewer moe_experts, what to look at, and every fault.

    `rows` are those that its routers were fitted to, by layer. Without statistics, or without the
    rows that the step asks for, there is a checkpoint to plan with, of which nothing can be read;
    `subject` names its recipe. With faults the model is returned as it is.
    """
    mixture, faults = _opened(model)
    if mixture is None:
        return model, (), faults
    faults = list(_faults(mixture, step, statistics))
    keep = step.number_of(mixture.experts)
    if not faults and rows is not None and set(rows) != set(mixture.names):
        told = spans(sorted(rows)), spans(sorted(mixture.names))
        faults = [Fault("moe.router", f"was fitted in {told[0]}, and has rows in {told[1]}")]
    if faults:
        return model, (), faults
    if step.matches_neurons:
        mixture = dataclasses.replace(mixture, neurons=MatchedNeurons(mixture.layout.parts))
    groups = _groups(mixture, step, statistics)
    tied = step.merges and step.router == ALL
    made = model
    if keep < mixture.experts:
        numbers = RouterNumbers(step, statistics, rows, subject)
        made = _tied(mixture, numbers, groups) if tied else _made(mixture, numbers, groups)
    config = _config(model, mixture.experts if tied else keep, step)
    cautions = fewer_cautions(model, step, statistics, groups, keep) if statistics else ()
    return dataclasses.replace(made, config=config), tuple(cautions), []


def fewer_groups(
    model: Checkpoint, step: FewerStep, statistics: MoeStatistics
) -> tuple[Mapping[int, Groups], Mapping[int, TensorSource]]:
    """Return the groups that a mixture's moe_experts become, and its routers, by layer.

    The model is one of which `fewer` finds no fault.
    """
    mixture, _ = _opened(model)
    assert mixture is not None  # it has no fault
    routers = {layer: _source(mixture.model, name) for layer, name in mixture.routers.items()}
    return _groups(mixture, step, statistics), routers


def _groups(
    mixture: _Mixture, step: FewerStep, statistics: MoeStatistics | None
) -> Mapping[int, Groups]:
    """The groups of each layer; without statistics some, of which only the number is right."""
    keep = step.number_of(mixture.experts)
    if statistics is None:
        return {layer: tuple(((at, 1.0),) for at in range(keep)) for layer in mixture.names}
    return {
        layer: groups_of(statistics.layers[layer], keep, step.method) for layer in mixture.names
    }


def _opened(model: Checkpoint) -> tuple[_Mixture | None, list[Fault]]:
    """The model with its moe_experts one by one, and what stands against it."""
    kind, layout, pattern = model.config.get("model_type"), layout_of(model.config), None
    if kind not in COUNTS or layout is None or (pattern := router_of(model.config)) is None:
        problem = f"has model_type {kind!r}; moe_experts are left out of {', '.join(COUNTS)}"
        return None, [Fault(model.name, problem)]
    kinds = layouts_in(model, layout)
    if len(kinds) != 1:
        told = "both fused and one by one; `convert: one_by_one` first" if kinds else "nowhere"
        return None, [Fault(model.name, f"has moe_experts {told}")]
    fused = kinds == {FUSED}
    if fused and (faults := axis_faults(model, layout)):
        return None, faults
    single = laid_out(model, layout, one_by_one=True) if fused else model
    names: dict[int, dict[tuple[int, str], str]] = {}
    routers: dict[int, str] = {}
    for name in single.tensors:
        place = _LAYER.search(name)
        found = layout.single.fullmatch(name)
        if place and found:
            key = int(found["number"]), found["part"]
            names.setdefault(int(place[1]), {})[key] = name
        elif place and is_router(pattern, name):
            routers[int(place[1])] = name
    mixture = _Mixture(single, layout, fused, routers, names)
    return (mixture, faults) if not (faults := list(_odd_layers(mixture))) else (None, faults)


def _odd_layers(mixture: _Mixture) -> Iterator[Fault]:
    """Layers that lack moe_experts, or have other numbers of them than the first or its router."""
    count, model = max(mixture.experts, 1), mixture.model
    wanted = {(number, part) for number in range(count) for part in mixture.layout.parts}
    for layer, names in sorted(mixture.names.items()):
        if set(names) != wanted:
            problem = f"has moe_experts in layer {layer} that are not whole, or not {count} as in"
            yield Fault(model.name, f"{problem} others: every layer must have as many")
            return
        shapes = {
            part: {model.tensors[names[number, part]].shape for number in range(count)}
            for part in mixture.layout.parts
        }
        router = model.tensors.get(mixture.routers.get(layer, ""))
        rows = list(router.shape) if router else "none"
        if router is None or len(router.shape) != 2 or router.shape[0] != count:
            problem = f"has {count} moe_experts in layer {layer} and a router of {rows}"
            yield Fault(model.name, f"{problem}; it must have a row for each")
            return
        if any(len(each) > 1 for each in shapes.values()):
            yield Fault(model.name, f"has moe_experts of several sizes in layer {layer}")
            return


def _faults(
    mixture: _Mixture, step: FewerStep, statistics: MoeStatistics | None
) -> Iterator[Fault]:
    """What of the step does not fit the model, or its statistics."""
    name, count, config = mixture.model.name, mixture.experts, mixture.model.config
    for key in COUNTS[str(config["model_type"])]:
        if key in config and config[key] != count:
            yield Fault(name, f"has {count} moe_experts in its files and `{key}: {config[key]}`")
    keep = step.number_of(count)
    if keep > count:
        yield Fault("moe.keep", f"is {keep}; '{name}' has {count} moe_experts a layer")
    chosen = config.get(PER_TOKEN)
    if type(chosen) is not int:
        yield Fault(name, f"does not say `{PER_TOKEN}` in config.json")
    else:
        slots = count if step.merges and step.router == ALL else keep
        asked = step.experts_per_token or chosen
        if asked > slots:
            problem = f"would be {asked} of {slots} moe_experts; write one of 1 to {slots}"
            yield Fault("moe.experts_per_token", problem)
        if statistics and statistics.chosen != chosen:
            problem = f"were measured with {statistics.chosen} moe_experts a token; '{name}' has"
            yield Fault("moe.statistics", f"{problem} {chosen}")
    if statistics is None:
        return
    if sorted(statistics.layers) != sorted(mixture.names):
        told = spans(sorted(statistics.layers)), spans(sorted(mixture.names))
        problem = f"are of {told[0]}; '{name}' has moe_experts in {told[1]}: they are another's"
        yield Fault("moe.statistics", problem)
    elif statistics.experts != count:
        problem = f"are of {statistics.experts} moe_experts a layer; '{name}' has {count}"
        yield Fault("moe.statistics", f"{problem}: they are another's")


def _made(mixture: _Mixture, numbers: RouterNumbers, groups: Mapping[int, Groups]) -> Checkpoint:
    """One moe_expert and one row of the router for each group."""
    changed: dict[str, TensorSource] = {}
    gone: set[str] = set()
    for layer, names in mixture.names.items():
        gone.update(names.values())
        for slot, group in enumerate(groups[layer]):
            for part in mixture.layout.parts:
                changed[names[slot, part]] = _merged(mixture, names, group, part)
        rows = groups[layer]
        if numbers.step.merges and numbers.step.router != MEAN:
            rows = tuple(((group[0][0], 1.0),) for group in rows)
        router = mixture.routers[layer]
        changed[router] = numbers.router(_source(mixture.model, router), layer, rows)
    return _changed(mixture, changed, gone)


def _tied(mixture: _Mixture, numbers: RouterNumbers, groups: Mapping[int, Groups]) -> Checkpoint:
    """Every moe_expert of a group is what the group becomes; the router has all of its rows."""
    changed: dict[str, TensorSource] = {}
    for layer, names in mixture.names.items():
        for group in groups[layer]:
            for part in mixture.layout.parts if len(group) > 1 else ():
                source = _merged(mixture, names, group, part)
                changed |= {names[member, part]: source for member, _ in group}
        router = mixture.routers[layer]
        rows: Groups = tuple(((each, 1.0),) for each in range(mixture.experts))
        changed[router] = numbers.router(_source(mixture.model, router), layer, rows)
    return _changed(mixture, changed, set())


def _merged(
    mixture: _Mixture, names: Mapping[tuple[int, str], str], group: Group, part: str
) -> TensorSource:
    """What a group of moe_experts becomes: a member with all of the share is read as it lies."""
    read = partial(_source, mixture.model)
    counted = [(member, share) for member, share in group if share > 0]
    first = counted[0][0]
    if len(counted) == 1:
        return read(names[first, part])
    if mixture.neurons is None:
        sources = [read(names[member, part]) for member, _ in counted]
    else:
        ordered = mixture.neurons.ordered
        sources = [ordered(read, names, (first, member), part) for member, _ in counted]
    return MeanTensor(tuple(sources), tuple(share for _, share in counted))


def _source(model: Checkpoint, name: str) -> TensorSource:
    found = source_of(model, name)
    assert found is not None  # names come from the model's own tensors
    return found


def _changed(mixture: _Mixture, changed: Mapping[str, TensorSource], gone: set[str]) -> Checkpoint:
    """The model with some tensors changed and others gone, in the layout that it had."""
    model = mixture.model
    tensors = {name: entry for name, entry in model.tensors.items() if name not in gone}
    overlays = {name: each for name, each in model.overlays.items() if name not in gone}
    for name, source in changed.items():
        own = isinstance(source, Stored) and source.checkpoint is model and source.name == name
        tensors[name] = _entry(source)
        if own:
            overlays.pop(name, None)
        else:
            overlays[name] = source
    ordered = {name: tensors[name] for name in sorted(tensors, key=natural_key)}
    made = dataclasses.replace(model, tensors=ordered, overlays=overlays)
    return laid_out(made, mixture.layout, one_by_one=False) if mixture.fused else made


def _entry(source: TensorSource) -> TensorEntry:
    if isinstance(source, Stored):
        return source.entry
    entry = unstored_entry(source)
    if not source.parts:  # rows that are not measured yet
        return entry
    first = source.parts[0].entry
    return dataclasses.replace(entry, file=first.file, offset=first.offset)


def _config(model: Checkpoint, experts: int, step: FewerStep) -> dict[str, Any]:
    keys = COUNTS[str(model.config["model_type"])]
    stated = [key for key in keys if key in model.config] or [keys[0]]
    config = {**model.config, **dict.fromkeys(stated, experts)}
    if step.experts_per_token is not None:
        config[PER_TOKEN] = step.experts_per_token
    return config

"""Models that keep their MoE experts in different layouts, brought to one before they are merged.

Where all agree nothing is touched. Where they differ the layout is one by one for families that
transformers loads so (other loaders read nothing else, and per-tensor statistics then see each
moe_expert by itself), and fused for the others. A family is known by `model_type` alone, and the
shapes of the fused tensors must prove its axes (sources.fused_layouts).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource, source_of
from merge_ops.checkpoints.header import ITEM_SIZES, TensorEntry
from merge_ops.checkpoints.layout import natural_key
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.sources.fused_layouts import DOWN, FusedLayout, layout_of
from merge_ops.sources.fused_tensors import Cut, Joined, turned

ONE_BY_ONE, FUSED = "one by one", "fused"
_ADVICE = (
    "Nothing is lost. Methods that look at whole tensors (ties, della, slerp, …) see each"
    " moe_expert by itself; with all models fused they would see those of a layer as one tensor"
)


@dataclass
class _Block:
    """What one MLP of one model has: fused tensors by (down, bias), others by (part, bias)."""

    fused: dict[tuple[bool, bool], str] = field(default_factory=dict[tuple[bool, bool], str])
    single: dict[tuple[int, bool], dict[int, str]] = field(
        default_factory=dict[tuple[int, bool], dict[int, str]]
    )


def in_one_layout(
    models: Mapping[str, Checkpoint], names: Iterable[str]
) -> tuple[Mapping[str, Checkpoint], list[Caution]]:
    """Return the models with those of `names` in one layout of moe_experts, and what was changed.

    They are returned as they are where their layouts agree, where they have no moe_experts, and
    where their family is not in the table (what differs then is told by others). Raises
    CompatibilityError where the shapes of a model disprove the axes of its family.
    """
    merged = {name: models[name] for name in dict.fromkeys(names)}
    family = {name: layout_of(each.config) for name, each in merged.items()}
    known = {id(each): each for each in family.values() if each is not None}
    if len(known) != 1:
        return models, []
    (layout,) = known.values()
    kinds = {name: layouts_in(each, layout) for name, each in merged.items()}
    if len({kind for found in kinds.values() for kind in found}) < 2:
        return models, []
    wanted = ONE_BY_ONE if layout.one_by_one else FUSED
    changed: dict[str, Checkpoint] = {}
    faults: list[Fault] = []
    cautions: list[Caution] = []
    for name, model in merged.items():
        faults += axis_faults(model, layout)
        if not faults and kinds[name]:
            changed[name] = laid_out(model, as_stored(model, layout), wanted == ONE_BY_ONE)
        if kinds[name] - {wanted}:
            told = " and ".join(sorted(kinds[name]))
            problem = f"keeps its MoE experts {told}, others do not: they are merged {wanted}"
            cautions.append(Caution(model.name, problem, _ADVICE if layout.one_by_one else ""))
    if faults:
        listed = ", ".join(each.name for each in merged.values())
        raise CompatibilityError(f"models {listed} cannot be merged", faults)
    return {**models, **changed}, cautions


def layouts_in(model: Checkpoint, layout: FusedLayout) -> set[str]:
    """Return which of the two layouts a model's names have: one, none, or both."""
    kinds: set[str] = set()
    for name in model.tensors:
        if layout.single.fullmatch(name):
            kinds.add(ONE_BY_ONE)
        elif layout.fused.fullmatch(name):
            kinds.add(FUSED)
    return kinds


def axis_faults(model: Checkpoint, layout: FusedLayout) -> list[Fault]:
    """Return what disproves the axes that the family's table has, for each fused MLP."""
    faults: list[Fault] = []
    for block in _blocks(model, layout)[0].values():
        if not block.fused:
            continue
        names = [block.fused.get((down, False)) for down in (False, True)]
        shapes = [model.tensors[name].shape if name else () for name in names]
        if any(_proven(each, shapes[0], shapes[1]) for each in layout.orders):
            continue
        order = (
            "(E, 2I, D) and (E, D, I)" if layout.axes == "out_in" else "(E, D, 2I) and (E, I, D)"
        )
        found = " and ".join(
            f"'{name}' {list(shape)}" for name, shape in zip(names, shapes, strict=True)
        )
        problem = (
            f"has {found}; files of its model_type have {order}, and another order of the axes is"
            " never guessed: load it with the version of transformers that wrote it, and save it"
            " again"
        )
        faults.append(Fault(model.name, problem))
        break  # the other layers say the same
    return faults


def as_stored(model: Checkpoint, layout: FusedLayout) -> FusedLayout:
    """Return the layout with the axes that a model's fused tensors have, where either is loaded."""
    orders = [dataclasses.replace(each, either=False) for each in layout.orders]
    return next((each for each in orders if not axis_faults(model, each)), layout)


def laid_out(model: Checkpoint, layout: FusedLayout, one_by_one: bool) -> Checkpoint:
    """Return a model with its moe_experts one by one, or fused; each tensor is read as it lies.

    A tensor that can be read as it lies is known by its place in the file, and others are made
    while they are read. MLPs that do not have all of their tensors stay as they are.
    """
    blocks, others = _blocks(model, layout)
    tensors: dict[str, TensorEntry] = {}
    overlays: dict[str, TensorSource] = {}

    def keep(old: str, new: str) -> None:
        tensors[new] = model.tensors[old]
        if old in model.overlays:
            overlays[new] = model.overlays[old]

    changed: set[str] = set()
    for at, block in blocks.items():
        for new, source in _converted(model, layout, at, block, one_by_one).items():
            changed.add(at)
            if isinstance(source, Stored):
                tensors[new] = source.entry
                if source.checkpoint is not model:
                    overlays[new] = source
            else:
                stored = source.parts[0].entry
                tensors[new] = TensorEntry(
                    source.dtype, source.shape, stored.file, stored.offset, source.nbytes
                )
                overlays[new] = source
        if at in changed:
            continue
        there = _is_there(block, one_by_one)
        changed.update({at} if there else ())
        for name in _names(block):
            keep(name, layout.renamed(name, one_by_one) if there else name)
    for name in others:
        keep(name, layout.renamed(name, one_by_one) if _at(name, layout) in changed else name)
    ordered = sorted(tensors, key=natural_key)
    return dataclasses.replace(
        model, tensors={name: tensors[name] for name in ordered}, overlays=overlays
    )


def _blocks(model: Checkpoint, layout: FusedLayout) -> tuple[dict[str, _Block], list[str]]:
    """The MLPs with moe_experts by what stands before their names, and all other tensors."""
    blocks: dict[str, _Block] = {}
    others: list[str] = []
    for name in model.tensors:
        fused, single = layout.fused.fullmatch(name), layout.single.fullmatch(name)
        if fused:
            block = blocks.setdefault(fused["at"], _Block())
            block.fused[fused["part"] == DOWN, bool(fused["bias"])] = name
        elif single:
            block = blocks.setdefault(single["at"], _Block())
            part = layout.parts.index(single["part"]), single["kind"] == "bias"
            block.single.setdefault(part, {})[int(single["number"])] = name
        else:
            others.append(name)
    return blocks, others


def _names(block: _Block) -> list[str]:
    return [
        *block.fused.values(),
        *(name for each in block.single.values() for name in each.values()),
    ]


def _is_there(block: _Block, one_by_one: bool) -> bool:
    """Whether an MLP has the wanted layout alone."""
    return not block.fused if one_by_one else not block.single


def _at(name: str, layout: FusedLayout) -> str:
    """What stands before the MLP's own name, for tensors beside its moe_experts."""
    parts = name.split(".")
    names = {*layout.blocks, layout.fused_block}
    found = [place for place, part in enumerate(parts) if part in names]
    return ".".join(parts[: found[-1]]) + "." if found and found[-1] else ""


def _converted(
    model: Checkpoint, layout: FusedLayout, at: str, block: _Block, one_by_one: bool
) -> dict[str, TensorSource]:
    """The tensors of an MLP in the other layout; none where it has that, or lacks something."""
    convert = _one_by_one if one_by_one else _fused
    return convert(model, layout, at, block)


def _proven(layout: FusedLayout, pair: tuple[int, ...], down: tuple[int, ...]) -> bool:
    """Whether the shapes of both fused tensors are those of the family's axes."""
    if len(pair) != 3 or len(down) != 3 or pair[0] != down[0]:
        return False
    if layout.axes == "out_in":
        return pair[1] == 2 * down[2] and pair[2] == down[1]
    return pair[2] == 2 * down[1] and pair[1] == down[2]


def _one_by_one(
    model: Checkpoint, layout: FusedLayout, at: str, block: _Block
) -> dict[str, TensorSource]:
    wanted = [(down, bias) for down in (False, True) for bias in (False, True)[: 1 + layout.biases]]
    if block.single or any(each not in block.fused for each in wanted):
        return {}
    found: dict[str, TensorSource] = {}
    for down, bias in wanted:
        whole = source_of(model, block.fused[down, bias])
        if whole is None:
            return {}
        count = whole.shape[0]
        for number in range(count):
            for part in (2,) if down else (0, 1):
                cut = _cut_bias if bias else _cut_weight
                found[layout.single_name(at, number, part, bias)] = _as_it_lies(
                    cut(layout, whole, number, part), layout.single_name(at, number, part, bias)
                )
    return found


def _cut_weight(layout: FusedLayout, whole: TensorSource, number: int, part: int) -> Cut:
    """Gate (0), up (1) or down (2) of one moe_expert."""
    _, first, second = whole.shape
    start = number * first * second
    if layout.axes == "out_in":
        rows = first if part == 2 else first // 2
        skipped, strides = (rows * second if part == 1 else 0), (second, 1)
        return Cut(whole, (rows, second), start + skipped, strides)
    if part == 2:
        return Cut(whole, (second, first), start, (1, second))
    rows, between = second // 2, 2 if layout.interleaved else 1
    skipped = part if layout.interleaved else part * rows
    return Cut(whole, (rows, first), start + skipped, (between, second))


def _cut_bias(layout: FusedLayout, whole: TensorSource, number: int, part: int) -> Cut:
    """The bias of gate, up or down of one moe_expert."""
    width = whole.shape[1]
    if part == 2:
        return Cut(whole, (width,), number * width, (1, 1))
    rows, between = width // 2, 2 if layout.interleaved else 1
    skipped = part if layout.interleaved else part * rows
    return Cut(whole, (rows,), number * width + skipped, (between, 1))


def _as_it_lies(cut: Cut, name: str) -> TensorSource:
    """A part of a stored tensor whose elements follow each other is a stored one itself."""
    whole, width = cut.own, prod(cut.shape[1:])
    if not isinstance(whole, Stored) or cut.strides != (width, 1):
        return cut
    entry, size = whole.entry, ITEM_SIZES[whole.dtype]
    own = TensorEntry(
        entry.dtype, cut.shape, entry.file, entry.offset + cut.start * size, cut.nbytes
    )
    return Stored(whole.checkpoint, name, own)


def _fused(
    model: Checkpoint, layout: FusedLayout, at: str, block: _Block
) -> dict[str, TensorSource]:
    kinds = (False, True)[: 1 + layout.biases]
    wanted = [(part, bias) for part in range(3) for bias in kinds]
    numbers = list(range(max((len(each) for each in block.single.values()), default=0)))
    if (
        block.fused
        or not numbers
        or any(sorted(block.single.get(each, {})) != numbers for each in wanted)
    ):
        return {}
    found: dict[str, TensorSource] = {}
    for bias in kinds:
        for down in (False, True):
            members: list[tuple[TensorSource, ...]] = []
            for number in numbers:
                parts = (2,) if down else (0, 1)
                named = [block.single[part, bias][number] for part in parts]
                sources = [each for each in (source_of(model, name) for name in named) if each]
                members.append(tuple(sources))
            first = members[0][0]
            if any(each.shape != first.shape or each.dtype != first.dtype
                   for layer in members for each in layer):  # fmt: skip
                return {}
            found[layout.fused_name(at, down, bias)] = _joined(layout, members, bias)
    return found


def _joined(
    layout: FusedLayout, members: list[tuple[TensorSource, ...]], bias: bool
) -> TensorSource:
    shape, together = members[0][0].shape, len(members[0])
    if bias:
        whole = (len(members), together * shape[0])
        return Joined(whole, tuple(members), layout.interleaved, layout.interleaved)
    if layout.axes == "out_in":
        return Joined((len(members), together * shape[0], shape[1]), tuple(members))
    turned_members = tuple(tuple(turned(each) for each in layer) for layer in members)
    whole = (len(members), shape[1], together * shape[0])
    return Joined(whole, turned_members, True, layout.interleaved and together > 1)

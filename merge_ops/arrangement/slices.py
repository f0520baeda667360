"""`slices`: ranges of layers of several models, merged and stacked to a depth of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from merge_ops.arrangement.groups import Arrangement, Place, make_group
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.depth import layer_of, layers_of
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.ties import excluded, find_source, own_heads
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import ModelEntry, Recipe, Section, SliceEntry


def stack_slices(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    section: Section,
    holds: Callable[[str], bool],
) -> Arrangement:
    """Stack the slices of a section, each a group of its own, and return the arrangement.

    Only tensors take part for which `holds` is true. Raises RecipeError where a slice cannot be
    met.
    """
    slices = [
        _Slice(recipe, checkpoints, section, number, holds) for number in range(len(section.slices))
    ]
    # A head that any model keeps for itself is written; a tied last slice gives its embedding.
    members = [member for stacked in slices for member in stacked.group.members]
    donor = checkpoints[recipe.base_model or recipe.merged_models[0]]
    heads = own_heads([donor, *members])
    places = [*slices[0].outside(True, heads), *slices[-1].outside(False, heads)]
    layers: list[tuple[Checkpoint, int]] = []
    for stacked in slices:
        places += stacked.layers(first=len(layers))
        layers += stacked.origins()
    skipped: dict[str, str] = {}
    for stacked in slices:
        for member in stacked.group.members:
            skipped.update(excluded(member))
    written = {place.name for place in places}
    skipped = {name: why for name, why in skipped.items() if name not in written}
    ordered = sorted(places, key=lambda place: natural_key(place.name))
    groups = tuple(stacked.group for stacked in slices)
    return Arrangement(tuple(ordered), groups, tuple(layers), skipped)


class _Slice:
    """One entry of `slices`, resolved."""

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        section: Section,
        number: int,
        holds: Callable[[str], bool],
    ) -> None:
        self._holds = holds
        self._entry: SliceEntry = section.slices[number]
        self._subject = recipe.subject
        self._where = f"{section.where}slices[{number}]"
        base_name = self._entry.base_model or recipe.base_model
        models = [each.model for each in self._entry.sources]
        if (recipe.on_task_vectors or recipe.method.base == "required") and (
            base_name not in models
        ):
            problem = f"does not list the base model {base_name}; {recipe.method.name} needs its"
            raise self._fault("sources", f"{problem} layers too: add it with its layer_range")
        entries = [ModelEntry(each.model, each.parameters) for each in self._entry.sources]
        levels = (self._entry.parameters, section.parameters)
        self.group = make_group(recipe, checkpoints, entries, base_name, self._where, levels)
        self._first = {
            checkpoints[each.model].name: each.layer_range[0] for each in self._entry.sources
        }
        start, end = self._entry.sources[0].layer_range
        self._count = end - start
        self._stack = self._checked_stack(checkpoints)

    def _fault(self, where: str, problem: str) -> RecipeError:
        return RecipeError(self._subject, [Fault(f"{self._where}.{where}", problem)])

    def _checked_stack(self, checkpoints: Mapping[str, Checkpoint]) -> str:
        """The stack's name, the same in all sources, long enough in each."""
        stack: str | None = None
        for position, source in enumerate(self._entry.sources):
            stacks = layers_of(filter(self._holds, checkpoints[source.model].tensors))
            where = f"sources[{position}].layer_range"
            if len(stacks) != 1:
                names = ", ".join(stacks) or "none"
                raise self._fault(
                    where,
                    f"needs a model with one stack of layers; {source.model} has: {names}. Name the"
                    " part to be sliced under `modules`",
                )
            (name, depth), end = next(iter(stacks.items())), source.layer_range[1]
            if end > depth:
                raise self._fault(
                    where, f"ends at {end}; {source.model} has {depth} layers (0 to {depth} may be"
                    " given: the end is not included)",
                )  # fmt: skip
            if stack is not None and name != stack:
                raise self._fault(
                    where, f"is of '{name}' in {source.model}, but of '{stack}' in the first source"
                )
            stack = name
        assert stack is not None
        return stack

    def origins(self) -> list[tuple[Checkpoint, int]]:
        """For each layer made: the model whose config describes it, and its number there."""
        leader = self.group.members[0]
        return [(leader, self._first[leader.name] + offset) for offset in range(self._count)]

    def outside(self, before: bool, heads: Collection[str]) -> Iterator[Place]:
        """The tensors of no layer; embeddings lie before the layers, all others behind them."""
        leader = self.group.members[0]
        heads = {name for name in heads if find_source(leader, name) is not None}
        names = filter(self._holds, dict.fromkeys([*leader.tensors, *heads]))
        skipped = excluded(leader).keys() - heads
        for name in names:
            if layer_of(name) is None and _lies_before(name) == before and name not in skipped:
                yield Place(name, 0.0, self.group, name, (name,) * len(self.group.inputs))

    def layers(self, first: int) -> Iterator[Place]:
        """The layers, numbered from `first`; t runs over this slice (a single layer has t = 1)."""
        leader = self.group.members[0]
        for offset in range(self._count):
            depth = offset / (self._count - 1) if self._count > 1 else 1.0
            prefix = self._layer(leader, offset)
            for rest in self._parts(leader, offset):
                yield Place(
                    f"{self._stack}.{first + offset}.{rest}",
                    depth,
                    self.group,
                    prefix + rest,
                    tuple(self._layer(each, offset) + rest for each in self.group.inputs),
                )

    def _parts(self, leader: Checkpoint, offset: int) -> list[str]:
        """Names of a layer's tensors within the layer, the same in every model."""
        names_of: dict[str, list[str]] = {}
        for model in self.group.members:
            prefix = self._layer(model, offset)
            names = (name for name in model.tensors if name.startswith(prefix))
            skipped = excluded(model)
            names_of[model.name] = [name[len(prefix) :] for name in names if name not in skipped]
        for model, parts in names_of.items():
            extra = sorted(set(parts) - set(names_of[leader.name]))
            if extra:
                problem = f"has '{extra[0]}' in the layer, which {leader.name} lacks there; nothing"
                raise self._fault("sources", f"cannot be merged: {model} {problem} is dropped")
        return names_of[leader.name]

    def _layer(self, checkpoint: Checkpoint, offset: int) -> str:
        return f"{self._stack}.{self._first[checkpoint.name] + offset}."


def _lies_before(name: str) -> bool:
    """Embeddings of tokens and positions; GPT-NeoX calls its output head `embed_out`."""
    return any(part in name for part in ("embed", "wte", "wpe")) and "embed_out" not in name

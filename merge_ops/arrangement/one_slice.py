"""One entry of `slices`, resolved: its models, their layers, and what lies around them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from merge_ops.arrangement.groups import Place, make_group
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.layer_counts import counted_layers, further_layers
from merge_ops.checkpoints.names.depth import layer_of, layers_of
from merge_ops.checkpoints.names.model_parts import predicts_further_tokens
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import ModelEntry, Recipe, Section, SliceEntry


class Slice:
    """A slice is one range of layers of each of its models.

    `stack` is the name of their stack, `count` the number of layers, `depths` how many layers each
    model has, and `numbers` which. Raises RecipeError where the models have no such layers.
    """

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        section: Section,
        number: int,
        holds: Callable[[str], bool],
    ) -> None:
        self.holds = holds
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
        self.count = end - start
        self.depths: dict[str, int] = {}
        self.numbers: dict[str, frozenset[int]] = {}
        self.stack = self._checked_stack(checkpoints)

    def _fault(self, where: str, problem: str) -> RecipeError:
        return RecipeError(self._subject, [Fault(f"{self._where}.{where}", problem)])

    def _checked_stack(self, checkpoints: Mapping[str, Checkpoint]) -> str:
        """The stack's name, the same in all sources, long enough in each."""
        stack: str | None = None
        for position, source in enumerate(self._entry.sources):
            checkpoint = checkpoints[source.model]
            names = [
                name
                for name in checkpoint.tensors
                if self.holds(name) and not predicts_further_tokens(name)
            ]
            stacks = layers_of(names)
            where = f"sources[{position}].layer_range"
            if len(stacks) != 1:
                found = ", ".join(stacks) or "none"
                raise self._fault(
                    where,
                    f"needs a model with one stack of layers; {source.model} has: {found}. Name the"
                    " part to be sliced under `modules`",
                )
            (name, depth), end = next(iter(stacks.items())), source.layer_range[1]
            behind = 0
            if further_layers(checkpoint.config, name):
                behind = depth - counted_layers(checkpoint.config, names).get(name, depth)
                depth -= behind
            if end > depth:
                raise self._fault(
                    where,
                    f"ends at {end}; {source.model} has {depth} layers (0 to {depth} may be"
                    " given: the end is not included)"
                    + (f", and {behind} for multi-token prediction behind them" if behind else ""),
                )
            if stack is not None and name != stack:
                raise self._fault(
                    where, f"is of '{name}' in {source.model}, but of '{stack}' in the first source"
                )
            stack = name
            self.depths[checkpoint.name] = depth
            places = filter(None, map(layer_of, names))
            self.numbers[checkpoint.name] = frozenset(at for _, at in places if at < depth)
        assert stack is not None
        return stack

    def check_stack(self, stack: str) -> None:
        """Raise RecipeError where the layers have another name than those of the first slice."""
        if self.stack != stack:
            problem = f"is of '{self.stack}', but of '{stack}' in the first slice; layers of other"
            raise self._fault("sources[0].layer_range", f"{problem} names make no one stack")

    def ranges(self) -> list[tuple[str, int, int]]:
        """Return model, first layer and end of each source."""
        return [(model, first, first + self.count) for model, first in self._first.items()]

    def sources(self) -> list[frozenset[tuple[str, int]]]:
        """Return for each layer made the models and the numbers there that it is made of."""
        return [
            frozenset((model, first + offset) for model, first in self._first.items())
            for offset in range(self.count)
        ]

    def origins(self) -> list[tuple[Checkpoint, int]]:
        """Return for each layer made the model whose config describes it, and its number there."""
        leader = self.group.members[0]
        return [(leader, self._first[leader.name] + offset) for offset in range(self.count)]

    def outside(self, before: bool, heads: Collection[str]) -> Iterator[Place]:
        """Yield the tensors of no layer; embeddings lie before the layers, all others behind.

        `heads` are those that a model of the stack keeps for itself.
        """
        leader = self.group.members[0]
        heads = {name for name in heads if find_source(leader, name) is not None}
        names = filter(self.holds, dict.fromkeys([*leader.tensors, *heads]))
        skipped = excluded(leader).keys() - heads
        for name in names:
            if layer_of(name) is not None or predicts_further_tokens(name) or name in skipped:
                continue
            if _lies_before(name) == before:
                yield Place(name, 0.0, self.group, name, (name,) * len(self.group.inputs))

    def layers(self, first: int) -> Iterator[Place]:
        """Yield the layers, numbered from `first`; t runs over this slice (1 in a single layer)."""
        leader = self.group.members[0]
        for offset in range(self.count):
            depth = offset / (self.count - 1) if self.count > 1 else 1.0
            prefix = self._layer(leader, offset)
            for rest in self._parts(leader, offset):
                yield Place(
                    f"{self.stack}.{first + offset}.{rest}",
                    depth,
                    self.group,
                    prefix + rest,
                    tuple(self._layer(each, offset) + rest for each in self.group.inputs),
                )

    def further(self, first: int) -> list[Place]:
        """Return the parts for multi-token prediction, numbered from `first` where they are layers.

        There are none where a model of the slice lacks a part that another has. t is 1 there.
        """
        parts = [self.further_of(each) for each in self.group.members]
        if any(each.keys() != parts[0].keys() for each in parts):
            return []
        of_inputs = parts[-len(self.group.inputs) :]
        return [
            Place(
                name if offset is None else f"{self.stack}.{first + offset}.{rest}",
                1.0,
                self.group,
                name,
                tuple(each[offset, rest] for each in of_inputs),
            )
            for (offset, rest), name in parts[0].items()
        ]

    def further_of(self, checkpoint: Checkpoint) -> Mapping[tuple[int | None, str], str]:
        """Return the names of a model's parts for multi-token prediction.

        They are known by how far their layer lies behind the last one and their name in it; where
        they have names of their own, by None and the name.
        """
        depth, skipped = self.depths[checkpoint.name], excluded(checkpoint)
        found: dict[tuple[int | None, str], str] = {}
        for name in filter(self.holds, checkpoint.tensors):
            place = layer_of(name)
            if name in skipped:
                continue
            if predicts_further_tokens(name):
                found[None, name] = name
            elif place is not None and place[1] >= depth:
                rest = name[len(f"{self.stack}.{place[1]}.") :]
                found[place[1] - depth, rest] = name
        return found

    def _parts(self, leader: Checkpoint, offset: int) -> list[str]:
        """Names of a layer's tensors within the layer, the same in every model."""
        names_of: dict[str, list[str]] = {}
        for model in self.group.members:
            prefix = self._layer(model, offset)
            names = (name for name in model.tensors if name.startswith(prefix))
            skipped = excluded(model)
            names_of[model.name] = [name[len(prefix) :] for name in names if name not in skipped]
        for model, parts in names_of.items():
            if not parts:
                number = self._first[model] + offset
                raise self._fault("sources", f"take layer {number} of {model}, which has none")
            extra = sorted(set(parts) - set(names_of[leader.name]))
            if extra:
                problem = f"has '{extra[0]}' in the layer, which {leader.name} lacks there; nothing"
                raise self._fault("sources", f"cannot be merged: {model} {problem} is dropped")
        return names_of[leader.name]

    def _layer(self, checkpoint: Checkpoint, offset: int) -> str:
        return f"{self.stack}.{self._first[checkpoint.name] + offset}."


def _lies_before(name: str) -> bool:
    """Embeddings of tokens and positions; GPT-NeoX calls its output head `embed_out`."""
    return any(part in name for part in ("embed", "wte", "wpe")) and "embed_out" not in name

"""Who is merged with whom, and which tensor of each: the vocabulary of an arrangement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import ModelEntry, Parameters, Recipe


@dataclass(frozen=True)
class Group:
    """Models that are merged with one another: of the whole file, or of one slice.

    `base` is the model that task vectors are differences to, None for methods on checkpoints.
    `own` are the parameters written at each input, `levels` those of the slice and the module, from
    the innermost out; the recipe's own come after them. `base_name` is the base model that the
    recipe names, whatever the method.
    """

    where: str
    base: Checkpoint | None
    inputs: tuple[Checkpoint, ...]
    own: tuple[Parameters, ...]
    levels: tuple[Parameters, ...] = ()
    base_name: str | None = None

    @property
    def on_task_vectors(self) -> bool:
        """Whether the method sees expert − base here."""
        return self.base is not None

    @property
    def members(self) -> tuple[Checkpoint, ...]:
        """Base (where there is one) and inputs."""
        return (self.base, *self.inputs) if self.base is not None else self.inputs


@dataclass(frozen=True)
class Place:
    """One tensor of the output: its depth for gradients, and what it is called in each model.

    `names` follow the group's inputs. Without a group the tensor is copied.
    """

    name: str
    depth: float
    group: Group | None
    base_name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrangement:
    """All places in natural order, and for each output layer (model, its layer there)."""

    places: tuple[Place, ...]
    groups: tuple[Group, ...]
    layers: tuple[tuple[Checkpoint, int], ...] | None = None
    excluded: Mapping[str, str] = field(default_factory=dict[str, str])


def make_group(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    entries: Sequence[ModelEntry],
    base_name: str | None,
    where: str,
    levels: tuple[Parameters, ...],
) -> Group:
    """The base and the inputs in order. Raises RecipeError where the method wants more or fewer."""
    base = checkpoints[base_name] if base_name else None
    own = {entry.model: entry.parameters for entry in entries}
    listed = list(own)
    on_task_vectors = recipe.on_task_vectors
    if on_task_vectors:
        listed = [name for name in listed if name != base_name]
    elif recipe.method.base == "required" and base_name:
        listed = [base_name, *(name for name in listed if name != base_name)]
    _check_count(recipe, listed, where, on_task_vectors)
    return Group(
        where,
        base if on_task_vectors else None,
        tuple(checkpoints[name] for name in listed),
        tuple(own.get(name, {}) for name in listed),
        levels,
        checkpoints[base_name].name if base_name else None,
    )


def _check_count(recipe: Recipe, listed: Sequence[str], where: str, on_task_vectors: bool) -> None:
    exactly, at_least = recipe.method.exactly, recipe.method.at_least
    if len(listed) >= at_least and (exactly is None or len(listed) == exactly):
        return
    wanted = f"exactly {exactly} model" if exactly else f"at least {at_least} model"
    wanted += "" if (exactly or at_least) == 1 else "s"
    wanted += " besides the base" if on_task_vectors else ""
    names = ", ".join(listed) or "none"
    problem = f"{recipe.method.name} merges {wanted}; got {names}"
    raise RecipeError(recipe.subject, [Fault(where, problem)])

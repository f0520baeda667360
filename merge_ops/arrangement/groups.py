"""Who is merged with whom, and which tensor of each: the vocabulary of an arrangement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.restacking import NewStack
from merge_ops.errors import Caution, Fault, RecipeError
from merge_ops.recipes.recipe import ModelEntry, Parameters, Recipe


@dataclass(frozen=True)
class Group:
    """A group is the models that are merged with one another: of a section, or of one slice.

    `base` is the model that task vectors are differences to, None for methods on checkpoints. `own`
    are the parameters written at each input, `levels` those of the slice and the module, from the
    innermost out; the recipe's own come after them. `base_name` is the base model that the recipe
    names, whatever the method.
    """

    where: str
    base: Checkpoint | None
    inputs: tuple[Checkpoint, ...]
    own: tuple[Parameters, ...]
    levels: tuple[Parameters, ...] = ()
    base_name: str | None = None

    @property
    def on_task_vectors(self) -> bool:
        """Return whether the method sees expert − base in this group."""
        return self.base is not None

    @property
    def members(self) -> tuple[Checkpoint, ...]:
        """Return the base (where there is one) and the inputs."""
        return (self.base, *self.inputs) if self.base is not None else self.inputs


@dataclass(frozen=True, slots=True)
class Place:
    """A place is one tensor of the output: its depth for gradients, its name in each model.

    `names` follows the group's inputs. Without a group the tensor is copied.
    """

    name: str
    depth: float
    group: Group | None
    base_name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrangement:
    """An arrangement holds all places of the output in natural order, and their groups.

    `stacks` holds the stacks of layers that slices make. `excluded` holds the reason for each
    tensor that is not written, `cautions` what a person should look at, and `faults` why the models
    cannot be merged so.
    """

    places: tuple[Place, ...]
    groups: tuple[Group, ...]
    stacks: tuple[NewStack, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict[str, str])
    cautions: tuple[Caution, ...] = ()
    faults: tuple[Fault, ...] = ()


def make_group(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    entries: Sequence[ModelEntry],
    base_name: str | None,
    where: str,
    levels: tuple[Parameters, ...],
) -> Group:
    """Make the group of a base and inputs, in order, and return it.

    Raises RecipeError where the method merges more or fewer models.
    """
    base = checkpoints[base_name] if base_name else None
    parameters_of = {entry.model: entry.parameters for entry in entries}
    listed = list(parameters_of)
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
        tuple(parameters_of.get(name, {}) for name in listed),
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

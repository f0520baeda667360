"""One model, whatever it is called: models are told apart by where they lie and what they hold.

A folder may be written as `base`, `./base`, `base/`, by its absolute path or through a link. All of
these are one model, so that a base that is listed among the models counts as the base. Copies of
one model in two folders are seen when their content is hashed. They are not one by their place, so
this is said, or refused, and never decided.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations

from merge_ops.arrangement.groups import Group
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.errors import Caution, Fault, RecipeError
from merge_ops.plans.plan import Plan
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.renaming import renamed


def with_one_name_each(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Recipe:
    """Return the recipe with one name for each model: the first that is written.

    Raises RecipeError where one model is listed twice, under two spellings.
    """
    first: dict[object, str] = {}
    names: dict[str, str] = {}
    for name in recipe.referenced_models:
        place = place_of(checkpoints[name]) if name in checkpoints else None
        chosen = name if place is None else first.setdefault(place, name)
        if chosen != name:
            names[name] = chosen
    return renamed(recipe, names) if names else recipe


def place_of(checkpoint: Checkpoint) -> object | None:
    """Return what tells the places of models in folders apart, or None for other places.

    It is the name that the model has for all the world (`hf://owner/name@commit`), the real path of
    its folder or file, or those of a base and the adapters on it.
    """
    if checkpoint.origin is not None:
        return checkpoint.origin
    if checkpoint.made_of:
        parts = tuple(place_of(each) for each in checkpoint.made_of)
        return None if None in parts else parts
    source = checkpoint.source
    return os.path.realpath(source.path) if isinstance(source, FolderSource) else None


def content_cautions(plan: Plan) -> tuple[Caution, ...]:
    """Return a caution for each model that holds what another of its group holds."""
    return tuple(
        Caution(second.name, *_told(group, first)) for group, first, second in _equal_pairs(plan)
    )


def refuse_equal_content(plan: Plan) -> None:
    """Raise RecipeError where two models of a group hold the same files under two names.

    It looks at digests, so the plan must have them.
    """
    faults = [
        Fault(f"{group.where}: {second.name!r}", ". ".join(_told(group, first)))
        for group, first, second in _equal_pairs(plan)
    ]
    if faults:
        raise RecipeError(plan.recipe.subject, faults)


def _equal_pairs(plan: Plan) -> Iterator[tuple[Group, Checkpoint, Checkpoint]]:
    """Models that hold what an earlier one of their group holds, each once, with that one."""
    told: set[str] = set()
    for group in plan.arrangement.groups:
        for first, second in combinations(group.members, 2):
            digest = plan.digest_of(first)
            if digest is None or second.name in told or digest != plan.digest_of(second):
                continue
            told.add(second.name)
            yield group, first, second


def _told(group: Group, first: Checkpoint) -> tuple[str, str]:
    """What is wrong with a model that holds what `first` holds, and what to do."""
    same = f"holds the same files as '{first.name}'"
    if first is group.base:
        problem = f"{same}, the base: its task vector is zero, yet it counts as an expert"
        return problem, "Leave it out; the base itself may be listed, and does not count"
    return f"{same}: one model would count twice", "Name one of them, with the weight of both"

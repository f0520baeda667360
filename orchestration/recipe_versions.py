"""Code versions of a recipe's assets: what of its file makes everything anew where it changes."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from merge_ops.plans.plan import PLAN_VERSION
from merge_ops.recipes import Recipe


def is_plain_average(recipe: Recipe) -> bool:
    """Whether a recipe is the mean of the experts and nothing else."""
    weight = recipe.parameters.get("weight")
    plain = isinstance(weight, int | float) and recipe.parameters.get("normalize", True) is True
    return plain and recipe.merge_method == "linear" and not (recipe.models or recipe.sweep)


def recipe_version(recipe: Recipe) -> str:
    """Changes with whatever in a recipe changes every merge. Sweep and sets are partitions."""
    return digest_of(
        [
            [recipe.method.name, recipe.method.version, recipe.seed if recipe.method.random else 0],
            [recipe.base_model, [dataclasses.asdict(section) for section in recipe.sections]],
            bool(recipe.experts),
            [dict(recipe.parameters), recipe.dtype, recipe.out_dtype],
            [_vocabulary_of(recipe), PLAN_VERSION],
            *([recipe.keep] if recipe.keep else ()),  # what was not written may have to be now
            *_structure_of(recipe),
        ]
    )


def _structure_of(recipe: Recipe) -> list[Any]:
    """What a step of another structure says; nothing of merges, whose versions stay what they are.

    Sums of a window's weights and a mixture's seed are there as they are written.
    """
    told: list[Any] = [] if recipe.router is None else [dict(recipe.router.written)]
    if recipe.router is not None and recipe.router.texts:
        told.append({name: each.digest for name, each in recipe.router.texts.items()})
    kind = recipe.structure
    if kind is not None:
        step: Any = getattr(recipe, kind)
        plain = isinstance(step, str)
        said = step if plain else dataclasses.asdict(step)
        told.append([kind, said, recipe.seed])
    return told


def _vocabulary_of(recipe: Recipe) -> list[Any]:
    written = dict(recipe.tokenizer.written) if recipe.tokenizer else None
    return [written, recipe.chat_template]


def digest_of(value: Mapping[str, Any] | list[Any]) -> str:
    """Return a digest of plain data: equal data, equal digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake3(text.encode()).hexdigest()[:32]

"""Code versions of assets: what a recipe says, as far as it changes what is made of it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from merge_ops.plans.plan import PLAN_VERSION
from merge_ops.recipes import Recipe


def recipe_version(recipe: Recipe) -> str:
    """Return what changes with whatever in a recipe changes every merge.

    Sweep and sets are partitions, and do not count.
    """
    return digest_of(
        [
            [recipe.method.name, recipe.method.version, recipe.seed if recipe.method.random else 0],
            [recipe.base_model, [dataclasses.asdict(section) for section in recipe.sections]],
            bool(recipe.experts),
            [dict(recipe.parameters), recipe.dtype, recipe.out_dtype],
            [_vocabulary_of(recipe), PLAN_VERSION],
            *([recipe.keep] if recipe.keep else ()),  # what was not written may have to be now
        ]
    )


def _vocabulary_of(recipe: Recipe) -> list[Any]:
    written = dict(recipe.tokenizer.written) if recipe.tokenizer else None
    return [written, recipe.chat_template]


def digest_of(value: Mapping[str, Any] | list[Any]) -> str:
    """Return a short digest of plain data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake3(text.encode()).hexdigest()[:32]

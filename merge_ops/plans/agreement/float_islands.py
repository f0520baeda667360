"""Tensors that models keep in float32 on purpose, and a recipe's dtype would round.

Routers' biases and the decay rates of linear attention stand in float32 in models of 16 bits:
rounded, two biases become equal, and kernels ask for float32. As in mergekit the recipe's dtype
holds for all tensors; it is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from merge_ops.errors import Caution
from merge_ops.plans.steps import Merge, Step
from merge_ops.recipes.recipe import Recipe

_WIDE, _NARROW = ("F32", "F64"), ("BF16", "F16")
_MAX_NAMED = 5


def island_cautions(recipe: Recipe, steps: Sequence[Step]) -> list[Caution]:
    """Return a caution that names the tensors of 32 bits that the dtype makes 16 bits of.

    It is empty where the models as a whole have 32 bits, or no such tensor.
    """
    merges = [step for step in steps if isinstance(step, Merge)]
    rounded = [step for step in merges if step.output.dtype in _NARROW]
    islands = [step for step in rounded if all(source.dtype in _WIDE for source in step.sources)]
    if not islands or 2 * sum(map(_elements, islands)) >= sum(map(_elements, rounded)):
        return []
    shown = ", ".join(f"'{step.output.name}'" for step in islands[:_MAX_NAMED])
    more = len(islands) - _MAX_NAMED
    named = f"{shown} and {more} more tensors" if more > 0 else shown
    written = "out_dtype" if recipe.out_dtype else "dtype"
    return [
        Caution(
            written,
            f"{recipe.out_dtype or recipe.dtype} rounds {named}, which every model keeps in float32"
            " among tensors of 16 bits",
            f"Leave {written} out, and every tensor keeps the dtype that the base has",
        )
    ]


def _elements(step: Merge) -> int:
    count = 1
    for size in step.output.shape:
        count *= size
    return count

"""The model of a `convert:` step, under another architecture's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from merge_ops.errors import CompatibilityError, Fault
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.structures.conversion_step import ARCHITECTURES, ONE_BY_ONE, PACKED

if TYPE_CHECKING:
    from merge_ops.checkpoints.checkpoint import Checkpoint


def with_conversion(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> Mapping[str, Checkpoint]:
    """Return the checkpoints with the recipe's model converted; those of other recipes as they are.

    Raises CompatibilityError with every reason why the conversion would not be exact.
    """
    if recipe.conversion is None:
        return checkpoints
    from merge_ops.arrangement.conversion import conversion_faults, converted, relaid
    from merge_ops.arrangement.packed_projections import PAIRS, packed_faults, repacked

    name = recipe.models[0].model
    model, target = checkpoints[name], recipe.conversion
    kind = model.config.get("model_type")
    if (kind, target) in PAIRS:
        faults = list(packed_faults(model, target))
        made = model if faults else repacked(model, target)
    elif target in PACKED or kind in PACKED:
        pairs = ", ".join(f"{one} to {other}" for one, other in sorted(PAIRS))
        problem = f"has model_type {kind!r}; what packs queries, keys and values is converted"
        faults, made = [Fault(model.name, f"{problem} from {pairs}")], model
    elif target in ARCHITECTURES:
        faults = list(conversion_faults(model, target))
        made = model if faults else converted(model, target)
    else:
        made, faults = relaid(model, target == ONE_BY_ONE)
    if faults:
        raise CompatibilityError(f"{recipe.subject}: `convert: {target}` is not exact", faults)
    return {**checkpoints, name: made}

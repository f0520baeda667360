"""The model of a `protect:` or `align:` step, with its tensors changed while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.strict_json import load_json
from merge_ops.errors import CompatibilityError, Fault, RecipeError
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.structures.symmetry_step import PROTECT, SymmetryStep

if TYPE_CHECKING:  # few recipes have such a step, and starting is counted
    from merge_ops.arrangement.mixtures.aligned_experts import ExpertAligner
    from merge_ops.symmetries import Symmetry
    from merge_ops.symmetries.keys import ProtectionKey

MOST_BYTES = 1 << 16  # of a key's file


def with_symmetry(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Mapping[str, Checkpoint], ExpertAligner | None]:
    """Return the checkpoints with the recipe's model protected, restored or aligned.

    Beside them stands what finds the order of moe_experts where a mixture is aligned. Those of
    other recipes are returned as they are. Raises RecipeError for a key that cannot be
    read, CompatibilityError where the model has no symmetries that are known here.
    """
    step = recipe.symmetry
    if step is None:
        return checkpoints, None
    from merge_ops.symmetries import transformed

    name = recipe.models[0].model
    model, aligner = checkpoints[name], None
    if step.kind == PROTECT:
        changed = transformed(model, _symmetry(recipe, step, model))
    else:
        changed, aligner = _aligned(model, checkpoints[str(step.base)])
    return {**checkpoints, name: changed}, aligner


def _aligned(model: Checkpoint, base: Checkpoint) -> tuple[Checkpoint, ExpertAligner | None]:
    """A mixture with its moe_experts in the base's order, or another decoder with all in it."""
    from merge_ops.arrangement.mixtures.expert_layers import FAMILIES, family_of

    if family_of(model.config) is not None:
        from merge_ops.arrangement.mixtures.aligned_experts import (
            expert_aligner,
            with_aligned_experts,
        )

        aligner = expert_aligner(model, base)
        return with_aligned_experts(aligner), aligner
    from merge_ops.symmetries.aligned_tensors import aligned
    from merge_ops.symmetries.anatomy import KNOWN

    kind = model.config.get("model_type")
    if kind not in KNOWN:
        known = f"{', '.join(KNOWN)}; and the moe_experts of {', '.join(FAMILIES)}"
        problem = f"has model_type {kind!r}; aligned are {known}"
        raise CompatibilityError("align: base", [Fault(f"model '{model.name}'", problem)])
    return aligned(model, base), None


def _symmetry(recipe: Recipe, step: SymmetryStep, model: Checkpoint) -> Symmetry:
    from merge_ops.symmetries.keys import symmetry_of

    key = _read_key(recipe, Path(str(step.key)))
    dtypes = {entry.dtype for entry in model.tensors.values()}
    if "F64" in dtypes or ("F16" in dtypes and key.scaled):
        way = "a key without factors (`ronghe protection-key --no-scales`)"
        problem = (
            f"holds float16, whose smallest numbers a factor would cut off; use {way}"
            if "F16" in dtypes
            else "holds float64, which no merge writes bit for bit; save it as float32 first"
        )
        raise CompatibilityError(recipe.subject, [Fault(f"model '{model.name}'", problem)])
    symmetry = symmetry_of(key, model)
    return symmetry.inverse() if step.undo else symmetry


def _read_key(recipe: Recipe, path: Path) -> ProtectionKey:
    from merge_ops.symmetries.keys import key_from_json

    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES} bytes")
        return key_from_json(load_json(data, one_value_each=True), str(path))
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or str(error)
        problem = f"is {str(path)!r}, which cannot be read ({told}); `ronghe protection-key` makes"
        raise RecipeError(recipe.subject, [Fault("protect.key", f"{problem} one")]) from error

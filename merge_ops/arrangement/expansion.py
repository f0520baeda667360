"""`expand:` as slices: which layers a deeper model has, and which of them are new."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.layer_counts import layer_count
from merge_ops.checkpoints.configs.restacking import NewStack, restack
from merge_ops.checkpoints.names.depth import layer_of, layers_of
from merge_ops.checkpoints.names.model_parts import predicts_further_tokens
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.recipes.recipe import Recipe, SliceEntry, SliceSource

# Families whose layers add to the stream what o_proj and down_proj give (Mixtral: w2); each was
# tried with transformers.
_OUTPUTS = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe"),
        ("o_proj", "down_proj"),
    ),
    "mixtral": ("o_proj", "w2"),
}  # fmt: skip


def with_expansion(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Recipe, tuple[Caution, ...]]:
    """Return the recipe with `expand:` as slices, and the caution that tells the new layers.

    Other recipes are returned as they are. Raises CompatibilityError where the model has not the
    layers, or the new ones would change its function.
    """
    step = recipe.expand
    if step is None:
        return recipe, ()
    name = recipe.models[0].model
    model = checkpoints[name]
    stack, depth = _stack(recipe, model)
    ranges: list[tuple[int, int, bool]]
    if step.solar:
        if 2 * step.solar >= depth:
            problem = f"is {step.solar}; '{model.name}' has {depth} layers: cut less than half"
            raise CompatibilityError(recipe.subject, [Fault("expand.solar", problem)])
        ranges = [(0, depth - step.solar, False), (step.solar, depth, False)]
        told = f"has layers {step.solar} to {depth - step.solar - 1} twice, and says other things"
        cautions = (Caution("the deeper model", told, "Train it on before it is used"),)
    else:
        before = step.layers // (step.every + 1) * step.every
        if before != depth:
            problem = f"is {step.layers} with `every: {step.every}`, which is for a model of"
            right = f"{depth // step.every * (step.every + 1)}"
            way = (
                f"write {right}"
                if depth % step.every == 0
                else f"choose an `every` that divides {depth}"
            )
            problem = f"{problem} {before} layers; '{model.name}' has {depth}: {way}"
            raise CompatibilityError(recipe.subject, [Fault("expand.layers", problem)])
        _check_zeros(recipe, model, stack)
        ranges = []
        for first in range(0, depth, step.every):
            end = first + step.every
            ranges += [(first, end, False), (end - 1, end, True)]
        new = range(step.every, step.layers, step.every + 1)
        listed = ", ".join(str(each) for each in new)
        told = f"has new layers {listed}, which add nothing yet"
        cautions = (Caution("the deeper model", told, "Train these layers alone"),)
    origins = [(model, at) for first, end, _ in ranges for at in range(first, end)]
    misfits = restack(model.config, NewStack(stack, tuple(origins)))[1]
    if misfits:
        raise CompatibilityError(recipe.subject, [Fault("expand", str(each)) for each in misfits])
    outputs = _OUTPUTS.get(str(model.config.get("model_type")), ())
    silent = {"scale": [*({"filter": each, "value": 0.0} for each in outputs), {"value": 1.0}]}
    slices = tuple(
        SliceEntry((SliceSource(name, (first, end), silent if zero else {}),))
        for first, end, zero in ranges
    )
    return dataclasses.replace(recipe, models=(), slices=slices, expand=None), cautions


def _stack(recipe: Recipe, model: Checkpoint) -> tuple[str, int]:
    """The model's one stack and its number of layers; parts for further tokens are refused."""
    stacks = layers_of(model.tensors)
    further = any(predicts_further_tokens(each) for each in model.tensors)
    if len(stacks) == 1 and not further:
        stack, depth = next(iter(stacks.items()))
        count = layer_count(model.config, stack)
        if count is not None and count.layers == depth:
            return stack, depth
    problem = f"'{model.name}' must have one stack of layers, as many as its config.json counts"
    raise CompatibilityError(recipe.subject, [Fault("expand", f"{problem}; use `slices`")])


def _check_zeros(recipe: Recipe, model: Checkpoint, stack: str) -> None:
    """Refuse what zeros do not silence: families that are not known, and layers without them."""
    kind = model.config.get("model_type")
    outputs = _OUTPUTS.get(str(kind))
    if outputs is None:
        problem = f"is not known for model_type {kind!r}: a norm with a bias behind a layer, or"
        problem += " other outputs, would change what the model says; known:"
        known = f"{', '.join(_OUTPUTS)}. Use `slices` with `scale` where you know the outputs"
        raise CompatibilityError(recipe.subject, [Fault("expand", f"{problem} {known}")])
    found: dict[int, set[str]] = {}
    for name in model.tensors:
        place = layer_of(name)
        if place is None or place[0] != stack:
            continue
        words = set(re.split(r"\W", name)) & set(outputs)
        found.setdefault(place[1], set()).update(words)
    for layer, words in found.items():
        if words != set(outputs):
            lacking = ", ".join(sorted(set(outputs) - words))
            problem = f"needs {lacking} in layer {layer} of '{model.name}', which has none"
            raise CompatibilityError(recipe.subject, [Fault("expand", problem)])

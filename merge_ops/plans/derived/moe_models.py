"""The one model that a mixture of experts is planned as: tensors of several models under new names.

A step becomes a passthrough of a checkpoint that is put together from headers: the base's tensors,
each expert's MLPs, routers. Its bytes are those of the models, copied while they are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.arrangement.conversion import Zeros
from merge_ops.arrangement.mixtures.moe_families import (
    DOWN,
    PARTS,
    QUERY_BIASES,
    QWEN2_MOE,
    SILENT_WIDTH,
    moe_config,
)
from merge_ops.calibration import gate_cautions
from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource, unstored_entry
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.plans.derived.moe_fit import MoeFit, fit_of
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.structures.moe_step import UNIFORM_RANDOM, MoeExpert, MoeStep
from merge_ops.sources.missing_rows import MissingRows
from merge_ops.sources.moe_tensors import ChangedTensor, DrawnRows, GivenRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Gates = Mapping[int, NDArray[np.float32]]

_DOUBLED = 2.0


@dataclass(frozen=True)
class MoeModels:
    """The checkpoint that a mixture is planned as, and the models beside its base."""

    model: Checkpoint
    beside: tuple[Checkpoint, ...]
    cautions: tuple[Caution, ...]


def moe_models(
    recipe: Recipe, step: MoeStep, checkpoints: Mapping[str, Checkpoint], gates: Gates | None
) -> MoeModels:
    """Put the model of a mixture together and return it.

    `gates` has the rows of each layer, (moe_experts, hidden), with that of a gated shared expert
    last; without them a step that needs prompts can be planned, and neither digested nor merged.
    Raises CompatibilityError with everything that does not fit.
    """
    base = checkpoints[step.base_model]
    fit = fit_of(step, checkpoints, recipe.subject)
    faults = _gate_faults(step, fit, gates)
    if faults:
        raise CompatibilityError(recipe.subject, faults)
    found = {name: find_source(base, name) for name in fit.kept}
    sources = {name: each for name, each in found.items() if each is not None}
    sources |= _moe_experts(recipe, step, checkpoints, fit)
    sources |= _routers(recipe, step, base, fit, gates)
    if fit.family is QWEN2_MOE:
        sources |= _zero_biases(base, fit)
        sources |= {} if step.shared else _silent_expert(base, fit)
    config = moe_config(fit.family, step, base.config, fit.inner, fit.tied)
    model = dataclasses.replace(
        base,
        tensors={name: _entry(base, name, each) for name, each in sources.items()},
        overlays={name: each for name, each in sources.items() if not _is_own(base, name, each)},
        config=config,
        left_out={**base.left_out, **fit.left_out},
        distinct=True,
    )
    names = [each for each in step.model_names if each != step.base_model]
    alike = gate_cautions(gates, "gates", step.gate_mode) if gates else ()
    cautions = [*fit.cautions, *alike]
    return MoeModels(model, tuple(checkpoints[name] for name in names), tuple(cautions))


def _is_own(base: Checkpoint, name: str, source: TensorSource) -> bool:
    return isinstance(source, Stored) and source.checkpoint is base and source.name == name


def _entry(base: Checkpoint, name: str, source: TensorSource) -> TensorEntry:
    """The header's entry of a tensor; only the base's own ones are read by it."""
    if _is_own(base, name, source):
        return base.tensors[name]
    return unstored_entry(source)


def _dtype(base: Checkpoint) -> str:
    return base.tensors["model.layers.0.mlp.gate_proj.weight"].dtype


def _moe_experts(
    recipe: Recipe, step: MoeStep, checkpoints: Mapping[str, Checkpoint], fit: MoeFit
) -> dict[str, TensorSource]:
    """The MLPs of all experts, and of the shared one, under their new names."""
    family, dtype = fit.family, _dtype(checkpoints[step.base_model])
    found: dict[str, TensorSource] = {}
    for layer in range(fit.layers):
        for number, expert in enumerate(step.experts):
            for part in PARTS:
                name = family.expert_name(layer, number, part)
                found[name] = _matrix(recipe, expert, checkpoints, layer, part, name, dtype)
        if step.shared is not None:
            # The gate of one half, sigmoid(0), is made up for by twice the output.
            half = family.gated and not step.shared_is_gated
            for part in PARTS:
                name = family.shared_name(layer, part)
                found[name] = _matrix(
                    recipe, step.shared, checkpoints, layer, part, name, dtype, half
                )
    return found


def _matrix(
    recipe: Recipe,
    expert: MoeExpert,
    checkpoints: Mapping[str, Checkpoint],
    layer: int,
    part: str,
    name: str,
    dtype: str,
    doubled: bool = False,
) -> TensorSource:
    own = find_source(checkpoints[expert.source_model], f"model.layers.{layer}.mlp.{part}.weight")
    assert own is not None  # fit_of has looked
    scale = 1.0
    if part == DOWN:
        scale = 1.0 if expert.residual_scale is None else float(expert.residual_scale)
        scale *= _DOUBLED if doubled else 1.0
    noise = float(expert.noise_scale or 0.0)
    if noise == 0.0 and scale == 1.0 and own.dtype == dtype:
        return own
    return ChangedTensor(own, dtype, name, noise, scale, recipe.seed)


def _routers(
    recipe: Recipe, step: MoeStep, base: Checkpoint, fit: MoeFit, gates: Gates | None
) -> dict[str, TensorSource]:
    count, dtype, family = len(step.experts), _dtype(base), fit.family

    def rows(layer: int, name: str, first: int, last: int) -> TensorSource:
        shape = (last - first, fit.hidden)
        if not step.needs_prompts:
            uniform = step.gate_mode == UNIFORM_RANDOM
            return DrawnRows(base.name, dtype, shape, name, recipe.seed, uniform)
        if gates is None:
            return MissingRows(base.name, dtype, shape, recipe.subject, "gate_mode", step.gate_mode)
        values = np.ascontiguousarray(gates[layer][first:last], dtype=np.float32)
        return GivenRows(base.name, dtype, values)

    found: dict[str, TensorSource] = {}
    for layer in range(fit.layers):
        name = family.router_name(layer)
        found[name] = rows(layer, name, 0, count)
        if not family.gated or step.shared is None:
            continue
        name = family.shared_gate_name(layer)
        if step.shared_is_gated:
            found[name] = rows(layer, name, count, count + 1)
        else:
            found[name] = Zeros(base.name, dtype, (1, fit.hidden))
    return found


def _zero_biases(base: Checkpoint, fit: MoeFit) -> dict[str, TensorSource]:
    """Biases of q, k and v, which Qwen2-MoE has, where the base has none."""
    found: dict[str, TensorSource] = {}
    for layer in range(fit.layers):
        for bias in QUERY_BIASES:
            name = f"model.layers.{layer}.self_attn.{bias}"
            if name not in base.tensors:
                matrix = base.tensors[name.replace(".bias", ".weight")]
                found[name] = Zeros(base.name, matrix.dtype, matrix.shape[:1])
    return found


def _silent_expert(base: Checkpoint, fit: MoeFit) -> dict[str, TensorSource]:
    """The shared expert that Qwen2-MoE cannot do without: it adds nothing."""
    found: dict[str, TensorSource] = {}
    for layer in range(fit.layers):
        shapes = dict.fromkeys(PARTS, (SILENT_WIDTH, fit.hidden)) | {
            DOWN: (fit.hidden, SILENT_WIDTH)
        }
        named = {fit.family.shared_name(layer, part): shape for part, shape in shapes.items()}
        for name, shape in {**named, fit.family.shared_gate_name(layer): (1, fit.hidden)}.items():
            found[name] = Zeros(base.name, _dtype(base), shape)
    return found


def _gate_faults(step: MoeStep, fit: MoeFit, gates: Gates | None) -> list[Fault]:
    if gates is None or not step.needs_prompts:
        return []
    wanted = (len(step.prompts), fit.hidden)
    return [
        Fault(f"gates of layer {layer}", f"are {told}; they must be {list(wanted)}")
        for layer in range(fit.layers)
        if (told := list(gates[layer].shape) if layer in gates else "missing") != list(wanted)
    ]

"""Adapters averaged into an adapter: Σ wᵢ · (alphaᵢ / rᵢ) · Bᵢ Aᵢ, without a base.

Exact, by default: factors are laid side by side, as `add_weighted_adapter(combination_type="cat")`
of PEFT does. The rank is Σ rᵢ, and the product is the weighted sum of the changes to float32:

    A = [A₁; A₂; …]    B = [w₁ s₁ B₁, w₂ s₂ B₂, …]    s = alpha / r, or alpha / √r with rslora

Weight and scale go into B alone: A's rows stay what they were, and only B is rounded. The new alpha
is the rank, so that the new scale is 1.

Factor-wise: A = Σ wᵢ Aᵢ and B = Σ wᵢ sᵢ Bᵢ, with smaller ranks filled up with zeros, as the starter
kit of the NeurIPS 2024 LLM Merging competition averages (https://github.com/llm-merging/LLM-Merging).
(Σ wB)(Σ wA) has products of one adapter's B and another's A, and is not the average of the changes.
The kit takes one scale for all; where adapters have one, sᵢ on B makes the same product.

Both are one rule: an output is zeros, to which each input is added, times a number, at a place of
its own. An adapter that lacks a module changes nothing there, and counts in `normalize` all the
same. Tensors saved whole are averaged where all adapters have them. Sums are float64, rounded once.
Memory: one block of rows and what is read into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose, prod
from typing import TYPE_CHECKING, Any, cast

from merge_ops.arrangement.groups import Group, Place
from merge_ops.checkpoints.checkpoint import Stored
from merge_ops.checkpoints.files.byte_sources import ByteSink
from merge_ops.checkpoints.layout import OutputTensor, lay_out
from merge_ops.checkpoints.names.depth import positions
from merge_ops.errors import CompatibilityError, Fault, NonFiniteError, RecipeError
from merge_ops.jobs.adapter_agreement import (
    Module,
    averaged_config,
    check_adapters,
    modules_of,
    recipe_faults,
    whole_tensors,
)
from merge_ops.jobs.adapter_card import adapter_card
from merge_ops.plans.resolution import ParameterResolver
from merge_ops.progress import Progress
from merge_ops.recipes.recipe import DTYPES, Recipe
from merge_ops.sources.lora.adapter_config import FILE as CONFIG_FILE
from merge_ops.sources.lora.adapters import PREFIX, WEIGHTS_FILE, Adapter
from merge_ops.stream.block_reader import fetch_stored
from merge_ops.stream.rounding import torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 18


@dataclass(frozen=True)
class Part:
    """A part is one input of an output tensor.

    `factor` times the input is added at (row, column).
    """

    stored: Stored
    factor: float
    row: int = 0
    column: int = 0


@dataclass(frozen=True)
class AveragedTensor:
    """An averaged tensor is one output tensor with the parts that it is the sum of."""

    output: OutputTensor
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class AdapterAverage:
    """An adapter average is the plan of the averaged adapter.

    It holds its config, its tensors, the rank of each module and its README.md (`card`).
    """

    config: Mapping[str, Any]
    tensors: tuple[AveragedTensor, ...]
    ranks: Mapping[str, int]
    card: str

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.output.nbytes for tensor in self.tensors)


def plan_average(
    recipe: Recipe, adapters: Sequence[Adapter], factor_wise: bool = False
) -> AdapterAverage:
    """Resolve a `linear` recipe whose models are `adapters`, in order, and return the plan.

    Reads no weight. Raises RecipeError where the recipe asks for more than an average,
    CompatibilityError with every reason why these adapters have none.
    """
    asked = list(recipe_faults(recipe))
    if asked:
        raise RecipeError(recipe.subject, asked)
    faults: list[Fault] = []
    modules = modules_of(adapters, faults)
    whole = whole_tensors(adapters, modules, faults)
    check_adapters(recipe, adapters, modules, faults)
    weights = _weights(recipe, adapters, [*(f"{name}.weight" for name in modules), *whole], faults)
    unequal = [name for name in whole if not isclose(sum(weights[name]), 1, rel_tol=1e-6)]
    if unequal and not faults:
        problem = f"sums to {sum(weights[unequal[0]]):g} for '{unequal[0]}', which is saved whole;"
        how = "whole tensors, unlike changes, can only be averaged: let the weights sum to 1"
        faults.append(
            Fault("parameters.weight", f"{problem} {how}, or leave out `normalize: false`")
        )
    if faults:
        raise CompatibilityError(f"{recipe.subject}: these adapters cannot be averaged", faults)
    wanted = recipe.out_dtype or recipe.dtype
    dtype = DTYPES[wanted] if wanted else None
    tensors: list[AveragedTensor] = []
    ranks: dict[str, int] = {}
    for module in modules.values():
        ranks[module.name] = module.rank(factor_wise)
        shares = [weights[f"{module.name}.weight"][number] for number in module.takers]
        tensors += _module_tensors(module, shares, dtype or "F32", factor_wise)
    for name, stored in whole.items():
        module, _, kind = name.rpartition(".")
        key = f"{module}.base_layer.{kind}" if module in modules else name
        parts = tuple(Part(*each) for each in zip(stored, weights[name], strict=True))
        kinds = {each.dtype for each in stored}
        own = kinds.pop() if len(kinds) == 1 else "F32"
        output = OutputTensor(PREFIX + key, dtype or own, stored[0].shape)
        tensors.append(AveragedTensor(output, parts))
    config = averaged_config(recipe, adapters, modules, ranks, list(whole))
    card = adapter_card(recipe, adapters, config["base_model_name_or_path"], factor_wise)
    return AdapterAverage(config, tuple(tensors), ranks, card)


def write_average(
    plan: AdapterAverage, sink: ByteSink, progress: Progress | None = None, block: int = BLOCK
) -> None:
    """Write a PEFT folder, `block` elements (or one row) at a time.

    Raises NonFiniteError for NaN or infinity in an adapter.
    """
    (shard,) = lay_out([tensor.output for tensor in plan.tensors], shard_bytes=1 << 62)
    by_name = {tensor.output.name: tensor for tensor in plan.tensors}
    with sink.open(WEIGHTS_FILE, shard.size) as file:
        file.write(shard.header)
        for number, output in enumerate(shard.tensors, start=1):
            for data in _blocks(by_name[output.name], block):
                file.write(data)
            if progress:
                progress(number, len(shard.tensors))
    config = json.dumps(plan.config, indent=2, ensure_ascii=False) + "\n"
    for name, text in ((CONFIG_FILE, config), ("README.md", plan.card)):
        with sink.open(name, len(text.encode())) as file:
            file.write(text.encode())


def _weights(
    recipe: Recipe, adapters: Sequence[Adapter], names: Sequence[str], faults: list[Fault]
) -> dict[str, tuple[float, ...]]:
    """Each adapter's share of each tensor, divided by their sum where `normalize` says so."""
    inputs = tuple(adapter.checkpoint for adapter in adapters)
    group = Group("models", None, inputs, tuple(entry.parameters for entry in recipe.models))
    resolver = ParameterResolver(recipe, recipe.coefficients())
    at = positions(names)
    weights: dict[str, tuple[float, ...]] = {}
    for name in names:
        place = Place(name, 0.0, group, name, (name,) * len(inputs))
        (found,) = resolver.resolve(place, group, at[name])
        total = sum(found.weight) if found.normalize else 1.0
        weights[name] = tuple(weight / total if total else weight for weight in found.weight)
    try:
        resolver.raise_faults()
    except RecipeError as error:
        if not faults:
            raise
        faults += error.faults
    return weights


def _module_tensors(
    module: Module, weights: Sequence[float], dtype: str, factor_wise: bool
) -> Iterator[AveragedTensor]:
    """A, B and, with `lora_bias`, the bias of one module."""
    rank, (down, up) = module.rank(factor_wise), module.pair
    downs: list[Part] = []
    ups: list[Part] = []
    shifts: list[Part] = []
    at = 0
    for taker, weight in zip(module.takers.values(), weights, strict=True):
        share = weight * taker.scale
        downs.append(Part(taker.roles[down], weight if factor_wise else 1.0, row=at))
        ups.append(Part(taker.roles[up], share, column=at))
        if "lora_B.bias" in taker.roles:
            shifts.append(Part(taker.roles["lora_B.bias"], share))
        at += 0 if factor_wise else taker.rank
    rows, columns = module.size
    found: dict[str, tuple[tuple[int, ...], list[Part]]] = {
        down: ((rank, columns), downs),
        up: ((rows, rank), ups),
    }
    if shifts:
        found["lora_B.bias"] = ((rows,), shifts)
    for role, (shape, parts) in found.items():
        output = OutputTensor(f"{PREFIX}{module.name}.{role}", dtype, shape)
        yield AveragedTensor(output, tuple(parts))


def _blocks(tensor: AveragedTensor, size: int) -> Iterator[memoryview]:
    """The bytes of an output tensor, by whole rows; of one that is no matrix, by elements."""
    import torch

    shape = tensor.output.shape
    columns = shape[1] if len(shape) == 2 else 1
    height = prod(shape) // columns if columns else 0
    step = max(1, size // max(1, columns))
    for first in range(0, height, step):
        count = min(step, height - first)
        block = torch.zeros(count, columns, dtype=torch.float64)
        for part in tensor.parts:
            _add(part, first, block)
        rounded = block.to(torch_dtype(tensor.output.dtype))
        if not bool(rounded.isfinite().all()):
            raise NonFiniteError(
                f"the average of '{tensor.output.name}' does not fit {tensor.output.dtype}; leave"
                " out `dtype`, or give smaller weights. Nothing was written"
            )
        yield memoryview(cast(bytearray, rounded.view(-1).view(torch.uint8).numpy()))


def _add(part: Part, first: int, block: Tensor) -> None:
    """Add what a part has in the rows of a block that starts at row `first` of the output."""
    stored = part.stored
    width = stored.shape[1] if len(stored.shape) == 2 else 1
    low = max(first, part.row)
    high = min(first + len(block), part.row + prod(stored.shape) // max(1, width))
    if low >= high:
        return
    values = fetch_stored(stored, (low - part.row) * width, (high - low) * width)
    if not bool(values.isfinite().all()):
        checkpoint = stored.checkpoint
        raise NonFiniteError(
            f"adapter '{checkpoint.name}': tensor '{stored.name}' holds NaN or infinity; the file"
            f" in {checkpoint.source.location} is damaged or its training diverged. Nothing was"
            " written"
        )
    into = block[low - first : high - first, part.column : part.column + width]
    into.add_(values.double().mul_(part.factor).view(-1, width))

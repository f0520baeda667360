"""A plan: a recipe resolved against real headers.

For every output tensor it says where it goes, what it is made of, and with which parameters, for
all coefficients of a sweep at once. Nothing but headers and configs is read. Every tensor of every
input is merged, copied or excluded by name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import blake3

from merge_ops.checkpoint import Checkpoint
from merge_ops.compatibility import check_compatible, excluded, find_tensor
from merge_ops.depth import depths
from merge_ops.errors import CheckpointError, Fault, RecipeError
from merge_ops.header import FLOAT_DTYPES, TensorEntry
from merge_ops.layout import OutputTensor, Shard, lay_out, natural_key
from merge_ops.methods.registry import MergeMethod, Span
from merge_ops.recipe import DTYPES, Coefficient, Recipe
from merge_ops.resolution import ParameterResolver
from merge_ops.whole_model import check_one_for_all

PLAN_VERSION = 1


@dataclass(frozen=True)
class PlannedTensor:
    """One output tensor: its inputs in order, and its parameters for each coefficient.

    `base` is the tensor of the base model for methods on task vectors, and what is copied when
    `action` is "copy". `parameters` are instances of the method's parameter class; `span` is what
    the method must see at once.
    """

    output: OutputTensor
    action: Literal["merge", "copy"]
    base: TensorEntry | None
    inputs: tuple[TensorEntry, ...]
    parameters: tuple[Any, ...]
    span: Span = "element"


@dataclass(frozen=True)
class Output:
    """One checkpoint that the plan makes."""

    coefficient: str
    values: Mapping[str, Any]
    digest: str | None


@dataclass(frozen=True)
class Plan:
    """Everything a merge will do. `outputs` has one entry for each coefficient.

    `base` donates config and tokenizer; `inputs` are the checkpoints the method combines.
    """

    recipe: Recipe
    base: Checkpoint
    inputs: tuple[Checkpoint, ...]
    tensors: tuple[PlannedTensor, ...]
    shards: tuple[Shard, ...]
    coefficients: tuple[Coefficient, ...]
    excluded: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def method(self) -> MergeMethod:
        """The merge method."""
        return self.recipe.method

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Base and inputs, each once."""
        unique = {checkpoint.name: checkpoint for checkpoint in (self.base, *self.inputs)}
        return tuple(unique.values())

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of base and inputs."""
        return tuple(checkpoint.name for checkpoint in self.checkpoints)

    @property
    def bytes_read(self) -> int:
        """Bytes of all input tensors, each counted once."""
        return sum(
            entry.nbytes
            for tensor in self.tensors
            for entry in (tensor.base, *tensor.inputs)
            if entry is not None
        )

    @property
    def bytes_written(self) -> int:
        """Bytes of weights written, over all coefficients."""
        return sum(shard.size for shard in self.shards) * len(self.coefficients)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Every coefficient with its digest; None where an input's digest is not known."""
        return tuple(
            Output(each.id, each.values, self._digest(position))
            for position, each in enumerate(self.coefficients)
        )

    def _digest(self, coefficient: int) -> str | None:
        if any(checkpoint.digest is None for checkpoint in self.checkpoints):
            return None
        identity = {
            "version": PLAN_VERSION,
            "method": [self.method.name, self.method.version],
            "seed": self.recipe.seed if self.method.random else None,
            "base": self.base.digest,
            "inputs": [checkpoint.digest for checkpoint in self.inputs],
            "streams": [c.name for c in self.inputs] if self.method.random else None,
            "shards": [shard.header.hex() for shard in self.shards],
            "excluded": sorted(self.excluded),
            "tensors": [
                [tensor.output.name, tensor.action, _plain(tensor.parameters, coefficient)]
                for tensor in self.tensors
            ],
        }
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return blake3.blake3(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, for people and for `ronghe plan --json`."""
        return {
            "recipe": self.recipe.name,
            "method": self.method.name,
            "base": _model_json(self.base),
            "inputs": [_model_json(checkpoint) for checkpoint in self.inputs],
            "seed": self.recipe.seed,
            "outputs": [dataclasses.asdict(output) for output in self.outputs],
            "shards": [{"file": shard.file, "bytes": shard.size} for shard in self.shards],
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "excluded": dict(self.excluded),
            "warnings": list(self.warnings),
            "tensors": [
                {
                    "name": tensor.output.name,
                    "dtype": tensor.output.dtype,
                    "shape": list(tensor.output.shape),
                    "action": tensor.action,
                    "parameters": [
                        _plain(tensor.parameters, position)
                        for position in range(len(tensor.parameters))
                    ],
                }
                for tensor in self.tensors
            ],
        }


def _model_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "location": checkpoint.source.location,
        "digest": checkpoint.digest,
        "tensors": len(checkpoint.tensors),
        "bytes": checkpoint.nbytes,
    }


def _plain(parameters: Sequence[Any], position: int) -> dict[str, Any]:
    return dataclasses.asdict(parameters[position]) if parameters else {}


def plan_merge(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    coefficients: Sequence[str] | None = None,
) -> Plan:
    """Resolve a concrete recipe against opened checkpoints, by the names the recipe uses.

    `coefficients` chooses some of the sweep by id (default: all). Raises CompatibilityError where
    the checkpoints do not fit, RecipeError where a required parameter has no value.
    """
    base, inputs = _roles(recipe, checkpoints)
    others = [each for each in inputs if each is not base]
    warnings = check_compatible(base, others, recipe.accept_tokenizer_difference)
    chosen = _chosen(recipe, coefficients)
    skipped: dict[str, str] = {}
    for checkpoint in (base, *inputs):
        skipped.update(excluded(checkpoint))
    skipped = {name: why for name, why in skipped.items() if not _untied(name, base)}
    names = sorted((name for name in base.tensors if name not in skipped), key=natural_key)
    resolver = ParameterResolver(recipe, [each.name for each in inputs], chosen)
    at = depths(names)
    tensors = [_plan_tensor(recipe, base, inputs, name, at[name], resolver) for name in names]
    resolver.raise_faults()
    check_one_for_all(recipe, tensors)
    shards = lay_out([tensor.output for tensor in tensors])
    by_name = {tensor.output.name: tensor for tensor in tensors}
    ordered = [by_name[output.name] for shard in shards for output in shard.tensors]
    return Plan(
        recipe, base, inputs, tuple(ordered), tuple(shards), chosen, skipped, tuple(warnings)
    )


def _untied(name: str, base: Checkpoint) -> bool:
    """A head that is tied in an expert is still written when the base keeps its own."""
    return name in base.tensors and name not in excluded(base)


def _roles(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Checkpoint, tuple[Checkpoint, ...]]:
    """The base and the inputs in order: an unlisted base joins last (mergekit's rule)."""
    listed = [checkpoints[entry.model] for entry in recipe.models]
    base = checkpoints[recipe.base_model] if recipe.base_model else listed[0]
    if recipe.on_task_vectors:
        inputs = [each for each in listed if each is not base]
    elif recipe.method.base == "required":
        inputs = [base, *(each for each in listed if each is not base)]
    else:
        inputs = listed if base in listed else [*listed, base]
    exactly, at_least = recipe.method.exactly, recipe.method.at_least
    if len(inputs) < at_least or (exactly is not None and len(inputs) != exactly):
        wanted = f"exactly {exactly} model" if exactly else f"at least {at_least} model"
        wanted += "" if (exactly or at_least) == 1 else "s"
        wanted += " besides the base" if recipe.on_task_vectors else ""
        names = ", ".join(each.name for each in inputs) or "none"
        raise RecipeError(
            recipe.subject, [Fault("models", f"{recipe.method.name} merges {wanted}; got {names}")]
        )
    return base, tuple(inputs)


def _chosen(recipe: Recipe, wanted: Sequence[str] | None) -> tuple[Coefficient, ...]:
    points = recipe.coefficients()
    if wanted is None:
        return points
    known = {point.id: point for point in points}
    unknown = [each for each in wanted if each not in known]
    if unknown:
        problem = f"has no coefficient {unknown[0]!r}; known: {', '.join(known)}"
        raise RecipeError(recipe.subject, [Fault("sweep", problem)])
    return tuple(known[each] for each in wanted)


def _plan_tensor(
    recipe: Recipe,
    base: Checkpoint,
    inputs: Sequence[Checkpoint],
    name: str,
    depth: float,
    resolver: ParameterResolver,
) -> PlannedTensor:
    own = base.tensors[name]
    if own.dtype not in FLOAT_DTYPES:
        return PlannedTensor(OutputTensor(name, own.dtype, own.shape), "copy", own, (), ())
    entries: list[TensorEntry] = []
    for checkpoint in inputs:
        entry = find_tensor(checkpoint, name)
        if entry is None:  # check_compatible has been through all of them
            raise CheckpointError(f"model '{checkpoint.name}' lacks tensor '{name}'")
        entries.append(entry)
    wanted = recipe.out_dtype or recipe.dtype
    dtype = DTYPES[wanted] if wanted else own.dtype
    parameters = resolver.resolve(name, depth)
    return PlannedTensor(
        OutputTensor(name, dtype, own.shape),
        "merge",
        own if recipe.on_task_vectors else None,
        tuple(entries),
        parameters,
        recipe.method.span_for(parameters),
    )

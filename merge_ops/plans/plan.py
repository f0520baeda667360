"""A plan: a recipe resolved against real headers.

For every output tensor it says where it goes, what it is made of, and with which parameters, for
all coefficients of a sweep at once. Nothing but headers and configs is read. Every tensor of every
input is merged, copied or excluded by name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import blake3

from merge_ops.arrangement.arrangement import arrange, donor_of
from merge_ops.arrangement.groups import Arrangement, Place
from merge_ops.checkpoints.byte_sources import ByteSource
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, stacked_digest
from merge_ops.checkpoints.config import merged_config
from merge_ops.checkpoints.depth import Position, positions
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import DEFAULT_SHARD_BYTES, OutputTensor, Shard, lay_out
from merge_ops.checkpoints.tensor_names import find_source, is_head, shape_fault
from merge_ops.errors import CompatibilityError, Fault, RecipeError
from merge_ops.methods.registry import MergeMethod
from merge_ops.plans.compatibility import check_compatible
from merge_ops.plans.model_wide import check_one_for_all
from merge_ops.plans.resolution import ParameterResolver
from merge_ops.plans.steps import Copy, Merge, Reuse, Step
from merge_ops.recipes.recipe import DTYPES, Coefficient, Recipe
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer, output_tokenizer

PLAN_VERSION = 4
GRADIENTS = (
    "gradients run over the layers of a stack (of a slice); embeddings, final norm and output head"
    " take the FIRST value of a gradient, as in mergekit"
)


@dataclass(frozen=True)
class Output:
    """An output is one checkpoint that the plan makes."""

    coefficient: str
    values: Mapping[str, Any]
    digest: str | None


@dataclass(frozen=True)
class Plan:
    """A plan states everything that a merge will do: one step for each tensor, in file order.

    `outputs` has one entry for each coefficient. `base` gives the config, and the tokenizer unless
    `tokenizer` replaces it. `digests` holds the digests of models that were opened without one, by
    the place that their files are read from. `arithmetic` is the kind of device whose bits the
    digests stand for (stream.device).
    """

    recipe: Recipe
    base: Checkpoint
    arrangement: Arrangement
    steps: tuple[Step, ...]
    shards: tuple[Shard, ...]
    coefficients: tuple[Coefficient, ...]
    warnings: tuple[str, ...]
    tokenizer: OutputTokenizer | None = None
    digests: Mapping[ByteSource, str] = field(default_factory=dict["ByteSource", str])
    arithmetic: str = "cpu"

    @property
    def method(self) -> MergeMethod:
        """Return the merge method."""
        return self.recipe.method

    @cached_property
    def inputs(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoints that the method combines, in order, each once."""
        found = [each for group in self.arrangement.groups for each in group.inputs]
        return tuple({checkpoint.name: checkpoint for checkpoint in found}.values())

    @cached_property
    def widest(self) -> int:
        """Return the largest number of inputs that any tensor has."""
        return max((len(group.inputs) for group in self.arrangement.groups), default=1)

    @property
    def excluded(self) -> Mapping[str, str]:
        """Return the input tensors that are not written, each with the reason."""
        return self.arrangement.excluded

    @cached_property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return every model that takes part, each once: first the base, then the inputs."""
        members = [each for group in self.arrangement.groups for each in group.members]
        unique = {each.name: each for each in (self.base, *self.inputs, *members)}
        return tuple(unique.values())

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names of the base and the inputs."""
        return tuple(checkpoint.name for checkpoint in self.checkpoints)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return the output's config.json.

        It is the base's config, changed to state the dtype, the layers and the head as written.
        """
        heads = any(is_head(step.output.name) for step in self.steps)
        written = self.recipe.out_dtype or self.recipe.dtype
        config = merged_config(self.base, self.arrangement.layers, heads, written)
        return self.tokenizer.configured(config) if self.tokenizer else config

    @property
    def bytes_read(self) -> int:
        """Return the bytes of all input tensors, each counted once."""
        return sum(step.nbytes for step in self.steps)

    @property
    def bytes_written(self) -> int:
        """Return the bytes of weights that are written for all coefficients together."""
        return sum(shard.size for shard in self.shards) * len(self.coefficients)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Return an output for every coefficient.

        Its digest is None where the digest of an input is not known.
        """
        return tuple(
            Output(each.id, each.values, self._digest(position))
            for position, each in enumerate(self.coefficients)
        )

    def digest_of(self, checkpoint: Checkpoint) -> str | None:
        """Return the content digest of a model of the plan, or None where it is not known."""
        if not self.digests:
            return checkpoint.digest
        if checkpoint.made_of:
            return stacked_digest([self.digest_of(each) for each in checkpoint.made_of])
        return self.digests.get(checkpoint.source, checkpoint.digest)

    def with_digests(self, digests: Mapping[ByteSource, str]) -> Plan:
        """Return the same plan with the content digests of its models.

        `digests` names them by the place that each model is read from. So a plan can be made, and
        its faults can be shown, before anything is hashed.
        """
        return dataclasses.replace(self, digests={**self.digests, **digests})

    def with_coefficients(self, ids: Collection[str]) -> Plan:
        """Return the plan for the coefficients with these ids only, in the plan's order."""
        positions = [at for at, each in enumerate(self.coefficients) if each.id in ids]

        def chosen(step: Step) -> Step:
            if isinstance(step, Reuse):
                made = tuple(step.made[at] for at in positions)
                return Reuse(_parameters_of(step.planned, positions), made)
            return _parameters_of(step, positions)

        return dataclasses.replace(
            self,
            steps=tuple(chosen(step) for step in self.steps),
            coefficients=tuple(self.coefficients[at] for at in positions),
        )

    def _digest(self, coefficient: int) -> str | None:
        if any(self.digest_of(checkpoint) is None for checkpoint in self.checkpoints):
            return None
        planned = [step.planned for step in self.steps]
        identity = {
            "version": PLAN_VERSION,
            "method": self.method.identity,
            "arithmetic": self.arithmetic,
            "seed": self.recipe.seed if self.method.random else None,
            "base": self.digest_of(self.base),
            "config": self.config,
            "streams": [c.name for c in self.inputs] if self.method.random else None,
            "shards": [shard.header.hex() for shard in self.shards],
            "excluded": sorted(self.excluded),
            "tensors": [
                [
                    step.output.name,
                    step.action,
                    [source.identity(self.digest_of) for source in step.sources],
                    plain_parameters(step.parameters, coefficient),
                ]
                for step in planned
            ],
        }
        if self.tokenizer and self.tokenizer.digest:
            identity["tokenizer"] = self.tokenizer.digest
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return blake3.blake3(text.encode()).hexdigest()


def _parameters_of(step: Merge | Copy, positions: Sequence[int]) -> Merge | Copy:
    """The step with the parameters of some coefficients."""
    if isinstance(step, Copy):
        return step
    return dataclasses.replace(step, parameters=tuple(step.parameters[at] for at in positions))


def plain_parameters(parameters: Sequence[Any], position: int) -> dict[str, Any]:
    """Return one coefficient's parameters of a tensor as plain data.

    A tensor that is copied has none: the result is empty.
    """
    return dataclasses.asdict(parameters[position]) if parameters else {}


def plan_merge(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    coefficients: Sequence[str] | None = None,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    arithmetic: str = "cpu",
) -> Plan:
    """Resolve a concrete recipe against opened checkpoints and return its plan.

    `checkpoints` has them by the names that the recipe uses. `coefficients` chooses some of the
    sweep by id (default: all). `shard_bytes` is the most data of a file of the output. `arithmetic`
    is the kind that the merge will compute with. Raises CompatibilityError where the checkpoints do
    not fit, RecipeError where a required parameter has no value.
    """
    donor = donor_of(recipe, checkpoints)
    arrangement = arrange(recipe, checkpoints)
    others = [checkpoints[name] for name in recipe.merged_models]
    others = [each for each in others if each is not donor]
    vocabularies = "merged" if recipe.tokenizer else "equal"
    warnings = check_compatible(donor, others, vocabularies, recipe.merges_whole_models)
    tokenizer = output_tokenizer(recipe, donor, checkpoints, arrangement)
    chosen = _chosen(recipe, coefficients)
    resolver = ParameterResolver(recipe, chosen)
    faults: list[Fault] = []
    at = positions([place.name for place in arrangement.places])
    steps = [
        _plan_tensor(recipe, donor, place, at[place.name], resolver, tokenizer, faults)
        for place in arrangement.places
    ]
    if faults:
        names = ", ".join(each.name for each in (donor, *others))
        raise CompatibilityError(f"models {names} cannot be merged", faults)
    resolver.raise_faults()
    check_one_for_all(recipe, steps)
    shards = lay_out([step.output for step in steps], shard_bytes, donor.stem)
    by_name: dict[str, Step] = {step.output.name: step for step in steps}
    ordered = [by_name[output.name] for shard in shards for output in shard.tensors]
    warnings += tokenizer.warnings if tokenizer else ()
    output = (tuple(ordered), tuple(shards), chosen, tuple(warnings), tokenizer)
    return Plan(recipe, donor, arrangement, *output, arithmetic=arithmetic)


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
    donor: Checkpoint,
    place: Place,
    position: Position,
    resolver: ParameterResolver,
    tokenizer: OutputTokenizer | None,
    faults: list[Fault],
) -> Merge | Copy:
    """One tensor of the output; what does not fit is added to `faults`."""
    group = place.group
    leader = group.members[0] if group else donor
    leader_source = find_source(leader, place.base_name)
    assert leader_source is not None  # places come from the leader's own tensors
    if group is None or leader_source.dtype not in FLOAT_DTYPES:
        return Copy(
            OutputTensor(place.name, leader_source.dtype, leader_source.shape), leader_source
        )
    input_sources = [
        find_source(each, name) for each, name in zip(group.inputs, place.names, strict=True)
    ]
    if tokenizer is not None:
        leader_source, input_sources = tokenizer.align(
            place.name, group, leader_source, input_sources
        )
    sources: list[TensorSource] = []
    for checkpoint, name, source in zip(group.inputs, place.names, input_sources, strict=True):
        if source is None:
            faults.append(Fault(checkpoint.name, f"lacks '{name}', which {leader.name} has"))
        elif source.shape != leader_source.shape:
            faults.append(shape_fault(leader, checkpoint, name, leader_source.shape, source.shape))
        else:
            sources.append(source)
    dtype_name = recipe.out_dtype or recipe.dtype
    dtype = DTYPES[dtype_name] if dtype_name else leader_source.dtype
    parameters = resolver.resolve(place, group, position)
    return Merge(
        OutputTensor(place.name, dtype, leader_source.shape),
        leader_source if group.on_task_vectors else None,
        tuple(sources),
        parameters,
        recipe.method.span_for(parameters),
    )

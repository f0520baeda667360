"""Planning: a recipe and opened checkpoints become a plan, or every fault is listed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from merge_ops.arrangement.arrangement import arrange
from merge_ops.arrangement.groups import Place
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import DEFAULT_SHARD_BYTES, OutputTensor, lay_out
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.depth import Position, positions
from merge_ops.checkpoints.names.tensor_names import shape_fault
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import CompatibilityError, Fault, RecipeError
from merge_ops.plans.agreement.compatibility import check_compatible, check_layouts
from merge_ops.plans.agreement.ending_agreement import ending_cautions
from merge_ops.plans.agreement.float_islands import island_cautions
from merge_ops.plans.agreement.integer_agreement import integer_faults
from merge_ops.plans.agreement.layer_rules import rule_faults
from merge_ops.plans.agreement.quiet_agreement import quiet_cautions
from merge_ops.plans.model_wide import check_one_for_all
from merge_ops.plans.one_model import content_cautions
from merge_ops.plans.plan import Plan
from merge_ops.plans.prepared_models import prepared_models
from merge_ops.plans.resolution import ParameterResolver
from merge_ops.plans.routers import Routers
from merge_ops.plans.side_files import (
    absent_file_cautions,
    side_file_cautions,
    side_file_faults,
)
from merge_ops.plans.steps import Copy, Merge, Step
from merge_ops.recipes.recipe import DTYPES, Coefficient, Recipe
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer, output_tokenizer

if TYPE_CHECKING:  # few recipes make a mixture, and starting is counted
    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.plans.derived.moe_models import Gates


def plan_merge(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    coefficients: Sequence[str] | None = None,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    arithmetic: str = "cpu",
    gates: Gates | None = None,
    statistics: MoeStatistics | None = None,
) -> Plan:
    """Resolve a concrete recipe against opened checkpoints and return its plan.

    `checkpoints` has them by the names that the recipe uses. `coefficients` chooses some of the
    sweep by id (default: all). `shard_bytes` is the most data of a file of the output. `arithmetic`
    is the kind that the merge will compute with. `gates` has the rows of each layer of a mixture of
    experts whose routers are made of prompts or fitted on texts, `statistics` what its moe_experts
    do on the texts that the recipe names. Raises CompatibilityError where the checkpoints do
    not fit, or their merge not its config, RecipeError where a required parameter has no value.
    """
    if recipe.window is not None and not recipe.window.found:
        problem = "has no steps yet; Steps.with_windows finds those of its run"
        raise RecipeError(recipe.subject, [Fault("window", problem)])
    models = prepared_models(recipe, checkpoints, gates, statistics)
    recipe, checkpoints, donor, others = (
        models.recipe, models.checkpoints, models.donor, models.others
    )  # fmt: skip
    arrangement = arrange(recipe, checkpoints)
    vocabularies = "merged" if recipe.tokenizer else "equal"
    cautions = [caution for each in (donor, *others) for caution in each.cautions]
    cautions += [*models.cautions, *arrangement.cautions]
    cautions += check_compatible(
        donor, others, vocabularies, recipe.merges_whole_models, models.as_given
    )
    check_layouts(arrangement.places)
    tokenizer = models.tokenizer or output_tokenizer(recipe, donor, checkpoints, arrangement)
    cautions += ending_cautions(recipe, donor, others, tokenizer)
    cautions += quiet_cautions(recipe, donor, others, tokenizer)
    chosen = _chosen(recipe, coefficients)
    resolver = ParameterResolver(recipe, chosen)
    faults: list[Fault] = [*arrangement.faults, *side_file_faults(donor)]
    at: Mapping[str, Position] = {}
    if recipe.method.at_position is not None:
        depth_of = {place.name: place.depth for place in arrangement.places}
        at = positions(depth_of, depth_of)
    routers = Routers(recipe, checkpoints, donor, gates)
    routers.check(arrangement.places)
    steps = [
        routers.taken(place, faults)
        or _plan_tensor(recipe, donor, place, at.get(place.name), resolver, tokenizer, faults)
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
    cautions += tokenizer.cautions if tokenizer else ()
    cautions += island_cautions(recipe, steps)
    cautions += routers.cautions(steps)
    cautions += side_file_cautions(donor)
    cautions += absent_file_cautions(donor, others, tokenizer is not None)
    output = (tuple(ordered), tuple(shards), chosen, tuple(cautions), tokenizer)
    plan = Plan(
        recipe,
        donor,
        arrangement,
        *output,
        arithmetic=arithmetic,
        beside=models.beside,
        aligner=models.aligner,
    )
    wrong = rule_faults(plan)
    if wrong:
        raise CompatibilityError(recipe.subject, wrong)
    alike = content_cautions(plan)
    return dataclasses.replace(plan, cautions=(*plan.cautions, *alike)) if alike else plan


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
    position: Position | None,
    resolver: ParameterResolver,
    tokenizer: OutputTokenizer | None,
    faults: list[Fault],
) -> Merge | Copy:
    """One tensor of the output; what does not fit is added to `faults`."""
    group = place.group
    leader = group.members[0] if group else donor
    leader_source = find_source(leader, place.base_name)
    assert leader_source is not None  # places come from the leader's own tensors
    if group is not None and leader_source.dtype not in FLOAT_DTYPES:
        faults.extend(integer_faults(leader, place.base_name, group.inputs, place.names))
        group = None
    if group is None or is_buffer(place.base_name, leader_source):
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

"""Plans of files of several YAML documents, of which later ones use the results of earlier ones.

All steps are planned from headers before any of them runs: the headers of a result are known from
its plan. When a step is merged, the plans of later ones read what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import DEFAULT_SHARD_BYTES
from merge_ops.plans.one_model import refuse_equal_content
from merge_ops.plans.plan import Plan
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.result_files import ResultFiles
from merge_ops.plans.resume import tensor_places
from merge_ops.recipes.steps import Steps

if TYPE_CHECKING:
    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.plans.derived.moe_models import Gates

MergeStep = Callable[[Plan], ByteSource]
"""Merges an earlier step and returns the place that it was written to."""


@dataclass(frozen=True)
class StepPlans:
    """Step plans hold a plan for each recipe of a file, and the files of earlier results."""

    plans: tuple[Plan, ...]
    results: tuple[ResultFiles, ...]

    @property
    def result(self) -> Plan:
        """Return the plan of the file's result."""
        return self.plans[-1]

    def with_digests(self, digests: Mapping[ByteSource, str]) -> StepPlans:
        """Return the same plans with the content digests of their models.

        `digests` names them by the place that each model is read from. Raises RecipeError where two
        models that are merged with one another hold the same files.
        """
        known = dict(digests)
        plans: list[Plan] = []
        for number, plan in enumerate(self.plans):
            plans.append(plan.with_digests(known))
            refuse_equal_content(plans[-1])
            digest = plans[-1].outputs[0].digest
            if digest is not None and number < len(self.results):
                known[self.results[number]] = digest
        return StepPlans(tuple(plans), self.results)

    def merge_earlier(self, merge_step: MergeStep) -> None:
        """Merge every earlier step with `merge_step`, in order."""
        for plan, result in zip(self.plans, self.results, strict=False):
            result.lie_in(merge_step(plan))


def plan_steps(
    steps: Steps,
    opened: Mapping[str, Checkpoint],
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    arithmetic: str = "cpu",
    gates: Mapping[str, Gates] | None = None,
    statistics: Mapping[str, MoeStatistics] | None = None,
) -> StepPlans:
    """Plan each recipe in order and return the plans.

    Reads headers alone. `gates` has the measured gates of mixtures of experts, and `statistics`
    those of their moe_experts, by the names of their recipes. Raises what `plan_merge` raises.
    """
    known = dict(opened)
    plans: list[Plan] = []
    results: list[ResultFiles] = []
    for recipe in steps.recipes:
        if plans:
            planned, files = planned_checkpoint(plans[-1])
            known[planned.name] = planned
            results.append(files)
        measured = (gates or {}).get(recipe.name)
        of_texts = (statistics or {}).get(recipe.name)
        plans.append(
            plan_merge(
                recipe,
                known,
                shard_bytes=shard_bytes,
                arithmetic=arithmetic,
                gates=measured,
                statistics=of_texts,
            )
        )
    return StepPlans(tuple(plans), tuple(results))


def planned_checkpoint(plan: Plan) -> tuple[Checkpoint, ResultFiles]:
    """Return the checkpoint that a plan without a sweep will write, and its files.

    The checkpoint is known by its headers alone.
    """
    outputs = [output for shard in plan.shards for output in shard.tensors]
    places = tensor_places(plan)
    tensors: dict[str, TensorEntry] = {
        output.name: place for output, place in zip(outputs, places, strict=True)
    }
    files, digest = ResultFiles(plan), plan.outputs[0].digest
    planned = Checkpoint(
        plan.recipe.name, files, tensors, plan.config, digest, files.sizes(), distinct=True
    )
    return planned, files

"""Plans of files of several YAML documents, of which later ones use the results of earlier ones.

All stages are planned from headers before any of them runs: the headers of a result are known from
its plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import DEFAULT_SHARD_BYTES
from merge_ops.plans.plan import Plan, plan_merge
from merge_ops.plans.side_files import side_files
from merge_ops.recipes.stages import Stages


def plan_stages(
    stages: Stages,
    opened: Mapping[str, Checkpoint],
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    arithmetic: str = "cpu",
) -> tuple[Plan, ...]:
    """A plan for each recipe, in order; from headers alone."""
    known = dict(opened)
    plans: list[Plan] = []
    for recipe in stages.recipes:
        plans.append(plan_merge(recipe, known, shard_bytes=shard_bytes, arithmetic=arithmetic))
        known[recipe.name] = planned_checkpoint(plans[-1])
    return tuple(plans)


def planned_checkpoint(plan: Plan) -> Checkpoint:
    """What a plan without a sweep will write, known by its headers alone."""
    tensors: dict[str, TensorEntry] = {}
    for shard in plan.shards:
        offset = len(shard.header)
        for tensor in shard.tensors:
            tensors[tensor.name] = TensorEntry(
                tensor.dtype, tensor.shape, shard.file, offset, tensor.nbytes
            )
            offset += tensor.nbytes
    source = _SideFiles(f"the result of '{plan.recipe.name}'", plan)
    digest = plan.outputs[0].digest
    return Checkpoint(plan.recipe.name, source, tensors, plan.config, digest, source.sizes())


class _SideFiles:
    """The files beside the weights of a checkpoint that is only planned."""

    def __init__(self, location: str, plan: Plan) -> None:
        self._location = location
        self._files = side_files(plan)

    @property
    def location(self) -> str:
        """For messages."""
        return self._location

    def sizes(self) -> Mapping[str, int]:
        """Sizes of the side files."""
        return {name: len(data) for name, data in self._files.items()}

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Bytes of a side file; the weights are not there yet."""
        if file not in self._files:
            raise OSError(f"{self._location} holds no {file} yet")
        buffer[:] = self._files[file][offset : offset + len(buffer)]


MergeStage = Callable[[Plan], Checkpoint]


def run_stages(
    stages: Stages,
    opened: Mapping[str, Checkpoint],
    merge_stage: MergeStage,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    arithmetic: str = "cpu",
) -> Plan:
    """Make every earlier result by `merge_stage`, in order; returns the plan of the last."""
    known = dict(opened)
    for recipe in stages.earlier:
        known[recipe.name] = merge_stage(
            plan_merge(recipe, known, shard_bytes=shard_bytes, arithmetic=arithmetic)
        )
    return plan_merge(stages.result, known, shard_bytes=shard_bytes, arithmetic=arithmetic)

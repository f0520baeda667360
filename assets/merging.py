"""From a recipe and an expert set to published checkpoints. Knows no Dagster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from assets.pulling import open_models
from assets.resume import carry_out
from assets.reuse import with_reuse
from merge_ops.recipe import Recipe

if TYPE_CHECKING:
    from merge_ops.plan import Output, Plan
    from merge_ops.stream import StreamSettings
    from resources.artifact import Artifact
    from resources.artifact_store import ArtifactStore

CHECKPOINT = "checkpoint"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MergedCheckpoint:
    """One published checkpoint; `memoized` when it was there before."""

    coefficient: str
    artifact: "Artifact"
    memoized: bool


@dataclass(frozen=True)
class MergedSet:
    """The checkpoints of one expert set, merged from one read of its inputs.

    `inputs` are the digests of base and experts by name. `seconds` and `bytes_*` are 0 when all
    checkpoints were there; of `tensors` tensors `reused` were copied from earlier checkpoints, and
    `resumed` from merges of the same plan that were killed.
    """

    expert_set: str
    inputs: Mapping[str, str]
    checkpoints: tuple[MergedCheckpoint, ...]
    seconds: float
    bytes_read: int
    bytes_written: int
    reused: int = 0
    tensors: int = 0
    resumed: int = 0

    @property
    def megabytes_per_second(self) -> float:
        """Bytes read and written, in 10⁶ a second."""
        return (self.bytes_read + self.bytes_written) / 1e6 / max(self.seconds, 1e-9)


def merge_set(
    store: "ArtifactStore",
    recipe: Recipe,
    base: str,
    expert_set: str,
    coefficients: Sequence[str],
    settings: "StreamSettings",
    licences: Mapping[str, str | None] | None = None,
    progress: Progress | None = None,
    asset: str | None = None,
    partitions: Mapping[str, str] | None = None,
) -> MergedSet:
    """Merge those of `coefficients` that the store does not hold, all from one read of the inputs.

    A checkpoint is published under its plan's digest, so asking again costs a small read each. What
    is unchanged since the checkpoints that `asset` points to (its `partitions` by coefficient) is
    copied from there, and what a killed merge finished from what it left. A failure publishes
    nothing. Raises CompatibilityError or NonFiniteError for inputs that cannot be merged,
    MissingArtifactError when a model is not in the store.
    """
    from merge_ops.plan import plan_merge

    concrete = recipe.for_experts(expert_set.split("+"), base)
    named = dict.fromkeys([*expert_set.split("+"), *concrete.referenced_models])
    models = open_models(store, base, [name for name in named if name != base])
    whole = plan_merge(concrete, models)
    wanted = [output for output in whole.outputs if output.coefficient in set(coefficients)]
    found = {each.coefficient: store.find(CHECKPOINT, str(each.digest)) for each in wanted}
    missing = [output for output in wanted if found[output.coefficient] is None]
    made: dict[str, Artifact] = {}
    seconds, bytes_read, bytes_written, reused, resumed = 0.0, 0, 0, 0, 0
    if missing:
        plan = plan_merge(concrete, models, [output.coefficient for output in missing])
        if asset is not None and partitions is not None:
            plan = with_reuse(store, plan, asset, partitions)
            reused = sum(tensor.action == "reuse" for tensor in plan.steps)

        def fields(output: "Output") -> dict[str, Any]:
            return _manifest_fields(plan, output, expert_set, licences or {})

        done = carry_out(store, CHECKPOINT, plan, fields, settings, progress)
        made.update(done.artifacts)
        seconds, bytes_read = done.report.seconds, done.report.bytes_read
        bytes_written, resumed = done.report.bytes_written, done.resumed
    checkpoints = tuple(
        MergedCheckpoint(each.coefficient, artifact, each.coefficient not in made)
        for each in wanted
        if (artifact := made.get(each.coefficient) or found[each.coefficient]) is not None
    )
    inputs = {each.name: str(each.digest) for each in whole.checkpoints}
    tensors = (reused, len(whole.tensors), resumed)
    return MergedSet(expert_set, inputs, checkpoints, seconds, bytes_read, bytes_written, *tensors)


def expected_tensors(artifact: "Artifact") -> list[str] | None:
    """Names of the tensors a checkpoint was planned to have."""
    return artifact.manifest.get("tensors")


def _manifest_fields(
    plan: "Plan", output: "Output", expert_set: str, licences: Mapping[str, str | None]
) -> dict[str, Any]:
    """What a manifest says of a merge; the same plan gives the same words."""
    return {
        "recipe": plan.recipe.name,
        "experts": expert_set,
        "coefficient": output.coefficient,
        "plan": {
            "method": plan.method.name,
            "method_version": plan.method.version,
            "seed": plan.recipe.seed if plan.method.random else None,
            "base": plan.base.name,
            "models": [each.name for each in plan.inputs],
            "parameters": {**plan.recipe.parameters, **output.values},
            "excluded": dict(plan.excluded),
        },
        "tensors": [tensor.output.name for tensor in plan.tensors],
        "inputs": {each.name: each.digest for each in plan.checkpoints},
        "licences": {each.name: licences.get(each.name) for each in plan.checkpoints},
        "versions": {name: _version(name) for name in ("ronghe", "torch")},
    }


def _version(name: str) -> str | None:
    """The installed version of a package; None when it runs from a folder that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None

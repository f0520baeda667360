"""From recipes and an expert set to published checkpoints. Knows no Dagster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from assets.work.emr_masking import PublishedMasks, publish_masks
from assets.work.pulling import open_models
from assets.work.resume import carry_out
from assets.work.reuse import with_reuse
from merge_ops.plans.stages import Stages
from merge_ops.recipes.recipe import Recipe

if TYPE_CHECKING:
    from merge_ops.checkpoints.checkpoint import Checkpoint
    from merge_ops.plans.plan import Output, Plan
    from merge_ops.stream.stream import StreamSettings
    from resources.store.artifact import Artifact
    from resources.store.artifact_store import ArtifactStore

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
    `resumed` from merges of the same plan that were killed. `masks` are those of merges by emr.
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
    masks: PublishedMasks | None = None

    @property
    def megabytes_per_second(self) -> float:
        """Bytes read and written, in 10⁶ a second."""
        return (self.bytes_read + self.bytes_written) / 1e6 / max(self.seconds, 1e-9)


def merge_set(
    store: "ArtifactStore",
    stages: Stages,
    base: str,
    expert_set: str,
    coefficients: Sequence[str],
    settings: "StreamSettings",
    licences: Mapping[str, str | None] | None = None,
    progress: Progress | None = None,
    asset: str | None = None,
    partitions: Mapping[str, str | None] | None = None,
) -> MergedSet:
    """Merge those of `coefficients` that the store does not hold, all from one read of the inputs.

    A checkpoint is published under its plan's digest, so asking again costs a small read each. What
    is unchanged since the checkpoints that `asset` points to (its `partitions` by coefficient) is
    copied from there, and what a killed merge finished from what it left. The results of earlier
    `stages` are found by their plans' digests, never by name, so they are those of the models as
    they are now; one that is not in the store is merged too. `expert_set` is empty where no recipe
    takes experts. A failure publishes nothing. Raises CompatibilityError or NonFiniteError for
    inputs that cannot be merged, MissingArtifactError when a model is not in the store.
    """
    experts = expert_set.split("+") if expert_set else []
    concrete = stages.for_experts(experts, base)
    named = dict.fromkeys([*experts, *concrete.referenced_models])
    models = open_models(store, base, [name for name in named if name != base])
    work = _Work(store, settings, licences or {}, progress)
    for own, recipe in zip(stages.earlier, concrete.earlier, strict=True):
        made_for = expert_set if stages.takes_experts(own) else ""
        merged = work.merge(recipe, models, made_for, ["default"])
        models[recipe.name] = _opened(recipe.name, merged.checkpoints[0].artifact)
    return work.merge(concrete.result, models, expert_set, coefficients, asset, partitions)


def _opened(name: str, artifact: "Artifact") -> "Checkpoint":
    from merge_ops.checkpoints.checkpoint import open_checkpoint

    return open_checkpoint(name, artifact.source(), artifact.digest)


@dataclass(frozen=True)
class _Work:
    """What every merge of one `merge_set` shares."""

    store: "ArtifactStore"
    settings: "StreamSettings"
    licences: Mapping[str, str | None]
    progress: Progress | None

    def merge(
        self,
        recipe: Recipe,
        models: Mapping[str, "Checkpoint"],
        expert_set: str,
        coefficients: Sequence[str],
        asset: str | None = None,
        partitions: Mapping[str, str | None] | None = None,
    ) -> MergedSet:
        """One concrete recipe: find what is in the store, merge and publish the rest."""
        from merge_ops.plans.plan import plan_merge
        from merge_ops.stream.device import arithmetic_kind

        kind = arithmetic_kind(self.settings.device)
        whole = plan_merge(recipe, models, arithmetic=kind)
        wanted = [output for output in whole.outputs if output.coefficient in set(coefficients)]
        found = {each.coefficient: self.store.find(CHECKPOINT, str(each.digest)) for each in wanted}
        missing = [each.coefficient for each in wanted if found[each.coefficient] is None]
        made: dict[str, Artifact] = {}
        seconds, bytes_read, bytes_written, reused, resumed = 0.0, 0, 0, 0, 0
        if missing:
            plan = plan_merge(recipe, models, missing, arithmetic=kind)
            if asset is not None and partitions is not None:
                plan = with_reuse(self.store, plan, asset, partitions)
                reused = sum(tensor.action == "reuse" for tensor in plan.steps)

            def fields(output: "Output") -> dict[str, Any]:
                return _manifest_fields(plan, output, expert_set, self.licences)

            done = carry_out(self.store, CHECKPOINT, plan, fields, self.settings, self.progress)
            made.update(done.artifacts)
            seconds, bytes_read = done.report.seconds, done.report.bytes_read
            bytes_written, resumed = done.report.bytes_written, done.resumed
        checkpoints = tuple(
            MergedCheckpoint(each.coefficient, artifact, each.coefficient not in made)
            for each in wanted
            if (artifact := made.get(each.coefficient) or found[each.coefficient]) is not None
        )
        inputs = {each.name: str(each.digest) for each in whole.checkpoints}
        work = (seconds, bytes_read, bytes_written, reused, len(whole.tensors), resumed)
        masks = publish_masks(self.store, whole)
        return MergedSet(expert_set, inputs, checkpoints, *work, masks)


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

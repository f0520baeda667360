"""From recipes and an expert set to published checkpoints. Knows no Dagster."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.emr_masking import EMR_MASKS, PublishedMasks, publish_masks
from assets.work.merging.loadability import refuse_unloadable
from assets.work.merging.manifests import licence_of, output_fields
from assets.work.merging.mixture_numbers import numbers_of_mixture
from assets.work.merging.resume import carry_out
from assets.work.merging.studying import known_signs
from assets.work.merging.virtual_checkpoints import (
    CHECKPOINT,
    check_place,
    publish_virtual,
)
from assets.work.reuse import with_reuse
from assets.work.upstream.pulling import open_models
from assets.work.upstream.training_runs import with_all_run_steps, with_runs
from merge_ops.recipes import Recipe, Steps

if TYPE_CHECKING:
    from assets.work.merging.resume import CarriedOut
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.plans import Plan
    from merge_ops.plans.plan import Output
    from merge_ops.progress import Progress
    from merge_ops.provenance.licences import EffectiveLicence
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore


@dataclass(frozen=True)
class MergeJob:
    """A merge job says what is to be merged for one expert set.

    `steps` end with the recipe that the job is for. `expert_set` is empty where no step takes
    experts. `points` maps each wanted coefficient to its partition of `asset`, the name that points
    to the results; the job has no name where nothing points to them.
    """

    steps: Steps
    base: str
    expert_set: str
    points: Mapping[str, str | None]
    asset: str | None = None
    licences: Mapping[str, str | None] = field(default_factory=dict[str, str | None])


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
    `warnings` are those of the plans, each with what to do. `licence` is what holds for them all.
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
    warnings: tuple[str, ...] = ()
    licence: "EffectiveLicence | None" = None

    @property
    def megabytes_per_second(self) -> float:
        """Bytes read and written, in 10⁶ a second."""
        return (self.bytes_read + self.bytes_written) / 1e6 / max(self.seconds, 1e-9)


def merge_set(
    store: "ArtifactStore",
    job: MergeJob,
    settings: "StreamSettings",
    progress: "Progress | None" = None,
) -> MergedSet:
    """Merge those checkpoints of a job that the store does not hold, from one read of the inputs.

    A checkpoint is published under its plan's digest, so asking again costs a small read each. One
    of a recipe that does not `keep: all` is published virtual: planned, and no weight is read. What
    is unchanged since the checkpoints that the job's asset points to is copied from there, and what
    a killed merge finished from what it left. The results of earlier steps are found by their
    plans' digests, never by name, so they are those of the models as they are now; one that is not
    in the store is merged too. A failure publishes nothing. Raises CompatibilityError or
    NonFiniteError for inputs that cannot be merged, MissingArtifactError when a model is not in the
    store.
    """
    opened = open_set(store, job, settings, progress)
    merger = _Merger(store, settings, progress)
    written = job.steps.result.writes_all
    result = merger.merge(
        opened.recipe, opened.models, job.expert_set, job.points, job.asset, written
    )
    experts = job.expert_set.split("+") if job.expert_set else []
    plans = experts and job.steps.takes_experts(job.steps.result)
    signs = known_signs(store, job.base, experts, opened.models) if plans else ()
    warnings = tuple(dict.fromkeys([*opened.warnings, *result.warnings, *signs]))
    used = {*opened.taken, *result.inputs}
    sources = [model for name, model in opened.sources.items() if name in used]
    licences = with_runs(job.licences, used)
    return replace(result, warnings=warnings, licence=licence_of(sources, licences))


@dataclass(frozen=True)
class OpenedSet:
    """What one expert set is merged from: the concrete recipe of the result, and open models.

    `sources` are those of the models that no step made, and `taken` the names of what the steps
    before it merged; `warnings` are theirs.
    """

    recipe: Recipe
    models: Mapping[str, "Checkpoint"]
    sources: Mapping[str, "Checkpoint"]
    taken: frozenset[str]
    warnings: tuple[str, ...]


def open_set(
    store: "ArtifactStore",
    job: MergeJob,
    settings: "StreamSettings",
    progress: "Progress | None" = None,
) -> OpenedSet:
    """Open everything that a job's result is merged from; merge the steps before it that lack.

    These are always written: their bytes are what the result is merged from. Raises as `merge_set`
    does.
    """
    experts = job.expert_set.split("+") if job.expert_set else []
    steps = with_all_run_steps(store, job.steps, job.points)
    concrete = steps.for_experts(experts, job.base)
    experts = experts if steps.takes_experts(steps.result) else []  # else names of what is made
    named = dict.fromkeys([*experts, *concrete.referenced_models])
    models = open_models(store, job.base, [name for name in named if name != job.base])
    merger, sources = _Merger(store, settings, progress), dict(models)
    warnings: list[str] = []
    taken: set[str] = set()
    for step, recipe in zip(job.steps.earlier, concrete.earlier, strict=True):
        made_for = job.expert_set if job.steps.takes_experts(step) else ""
        merged = merger.merge(recipe, models, made_for, {"default": None})
        models[recipe.name] = _opened(recipe.name, merged.checkpoints[0].artifact)
        warnings += merged.warnings
        taken |= merged.inputs.keys()
    return OpenedSet(concrete.result, models, sources, frozenset(taken), tuple(warnings))


def point_at(store: "ArtifactStore", job: MergeJob, merged: MergedSet, run: str) -> None:
    """Point the job's name, partition by partition, to what was merged, and name its masks.

    The ref says what the job's catalog calls the models that went in, and what it says of them.
    """
    asset = str(job.asset)
    of_all = with_runs(job.licences, merged.inputs)
    licences = {name: of_all.get(name) for name in merged.inputs}
    said = {
        "models": dict(merged.inputs),
        **({"licences": licences} if any(licences.values()) else {}),
        **({"warnings": list(merged.warnings)} if merged.warnings else {}),
    }
    for point in merged.checkpoints:
        partition = job.points[point.coefficient]
        store.point(asset, partition, CHECKPOINT, point.artifact.digest, run=run, **said)
    if merged.masks is not None:
        digest, expert_set = merged.masks.artifact.digest, job.expert_set or None
        store.point(names.emr_masks(asset), expert_set, EMR_MASKS, digest, run=run)


def _opened(name: str, artifact: "Artifact") -> "Checkpoint":
    from merge_ops.checkpoints import open_checkpoint

    return open_checkpoint(name, artifact.source(), artifact.digest)


@dataclass(frozen=True)
class _Merger:
    """What every merge of one job shares."""

    store: "ArtifactStore"
    settings: "StreamSettings"
    progress: "Progress | None"

    def merge(
        self,
        recipe: Recipe,
        models: Mapping[str, "Checkpoint"],
        expert_set: str,
        points: Mapping[str, str | None],
        asset: str | None = None,
        written: bool = True,
    ) -> MergedSet:
        """Find what the store holds of one concrete recipe, merge and publish the rest.

        What need not be `written` is published virtual where it is not there; what must be and is
        there virtual is merged.
        """
        from merge_ops.plans import plan_merge
        from merge_ops.stream import arithmetic_kind, check_settings

        kind = arithmetic_kind(self.settings.device)

        def reusing(plan: "Plan") -> "Plan":
            return with_reuse(self.store, plan, asset, points) if asset is not None else plan

        numbers = numbers_of_mixture(self.store, self.settings, recipe, models, reusing)
        measured = {"gates": numbers.gates, "statistics": numbers.statistics}
        whole = plan_merge(recipe, models, arithmetic=kind, **measured)
        wanted = [output for output in whole.outputs if output.coefficient in points]
        present = {
            output.coefficient: artifact
            for output in wanted
            if (artifact := self.store.find(CHECKPOINT, str(output.digest))) is not None
            and not (written and artifact.virtual)
        }
        missing = [each.coefficient for each in wanted if each.coefficient not in present]
        made, reused, plan = None, 0, whole
        if missing:
            plan = whole.with_coefficients(missing)
            check_settings(plan, self.settings)  # before any weight is read, to hash or to merge it
        if missing and not written:
            present.update(publish_virtual(self.store, plan, models))
        elif missing:
            if recipe.verify:
                refuse_unloadable(plan)
            check_place(self.store, plan.bytes_written)
            plan = reusing(plan)
            reused = sum(step.action == "reuse" for step in plan.steps)
            made = self._carry_out(plan, models)
            present.update(made.artifacts)
        checkpoints = tuple(
            MergedCheckpoint(name, present[name], name not in missing)
            for name in (output.coefficient for output in wanted)
        )
        return MergedSet(
            expert_set=expert_set,
            inputs={each.name: str(each.digest) for each in whole.checkpoints},
            checkpoints=checkpoints,
            seconds=made.report.seconds if made else 0.0,
            bytes_read=made.report.bytes_read if made else 0,
            bytes_written=made.report.bytes_written if made else 0,
            reused=reused,
            tensors=len(whole.steps),
            resumed=made.resumed if made else 0,
            masks=publish_masks(self.store, whole),
            warnings=tuple(map(str, whole.cautions)),
        )

    def _carry_out(self, plan: "Plan", models: Mapping[str, "Checkpoint"]) -> "CarriedOut":
        told = output_fields(plan, models)

        def fields(output: "Output") -> dict[str, Any]:
            return told[output.coefficient][1]

        return carry_out(self.store, CHECKPOINT, plan, fields, self.settings, self.progress)


def expected_tensors(artifact: "Artifact") -> list[str] | None:
    """Return the names of the tensors that a checkpoint was planned to have."""
    return artifact.manifest.get("tensors")

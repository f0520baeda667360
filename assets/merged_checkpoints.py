"""<recipe>/merged_checkpoint: every expert set at every coefficient of one recipe."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
from blake3 import blake3

from assets.checks import report_checks
from assets.frame.batches import Batch
from assets.frame.data_versions import checkpoint_version
from assets.frame.display import listed, of_artifact, of_licence, of_masks, of_work
from assets.frame.failures import stop_if_run_is_over
from assets.frame.grid import group_by_set
from assets.frame.progress_log import log_progress
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.withdrawal_checks import check_partitions, spec
from assets.work import names
from assets.work.merging.merging import MergedCheckpoint, MergedSet, MergeJob, point_at
from assets.work.records.noted_merges import merge_noted
from assets.work.scoring.searching import found_job
from merge_ops.errors import shown
from merge_ops.recipes import Recipe, Steps


@dataclass(frozen=True)
class MergeRecipe:
    """A merge recipe tells the assets its base model, and how its partitions hang together.

    `steps` end with the recipe and begin with those whose results it uses. `deps` are the assets
    that its expert sets, and what else it names, come from. `code_version` changes with whatever in
    the recipe changes every merge; the sweep and the sets, which are partitions, do not count.
    """

    steps: Steps
    base: str
    grid: dg.MultiPartitionsDefinition
    deps: Sequence[dg.AssetDep]
    licences: Mapping[str, str | None]
    code_version: str

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.steps.result

    @property
    def name(self) -> str:
        """The recipe's name, which is also its group's."""
        return self.recipe.name

    @property
    def asset(self) -> str:
        """Name of the merged checkpoints."""
        return names.merged_checkpoint(self.name)

    @property
    def key(self) -> dg.AssetKey:
        """Key of the merged checkpoints."""
        return dg.AssetKey.from_user_string(self.asset)

    @property
    def search_key(self) -> dg.AssetKey:
        """Key of the studies, where the recipe searches for its coefficients."""
        return dg.AssetKey.from_user_string(names.search(self.name))

    def together(
        self, keys: Sequence[str]
    ) -> Iterator[tuple[str, Mapping[str, dg.MultiPartitionKey]]]:
        """Yield the points that are merged from one read: expert set, and keys by coefficient.

        Windows are merged one by one: what each is made of is its own steps, and no other's.
        """
        for expert_set, points in group_by_set(keys).items():
            if self.recipe.window is None:
                yield expert_set, points
            else:
                yield from ((expert_set, {name: key}) for name, key in points.items())

    def job(self, expert_set: str, points: Mapping[str, str]) -> MergeJob:
        """Describe what a run merges for one set; `points` are partition keys by coefficient."""
        keys = {coefficient: str(key) for coefficient, key in points.items()}
        return MergeJob(self.steps, self.base, expert_set, keys, self.asset, self.licences)


def build_merged_checkpoint(
    merge: MergeRecipe, condition: dg.AutomationCondition, op_tags: Mapping[str, Any]
) -> dg.AssetsDefinition:
    """Build the asset of one recipe. A run may hold many points; it reads a set's inputs once."""

    @team_asset(
        merge.asset,
        condition,
        deps=merge.deps
        if not merge.recipe.is_searched
        else [*merge.deps, dg.AssetDep(merge.search_key)],
        partitions=merge.grid,
        group=merge.name,
        code_version=merge.code_version,
        gpu=op_tags,
        one_run=True,
        kind="pytorch",
        checks=[spec(merge.asset, merge.grid)],
        description=f"Merged checkpoints: experts merged by {merge.recipe.merge_method}, as recipe"
        f" {merge.name} says. Published under the digest of the plan: what is in the store is not"
        f" merged again. {_KEPT[merge.recipe.kept]}",
    )
    def merged_checkpoint(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, look = settings.store(), partial(report_checks, context, settings, merge.key)
        check, run = partial(check_partitions, context, settings), context.run.run_id
        batch = Batch(context, look, check)
        for expert_set, points in merge.together(batch.keys):
            job, progress = merge.job(expert_set, points), log_progress(context.log, expert_set)
            with batch.part(*points.values()):
                version = merge.code_version
                if merge.recipe.is_searched:
                    job, study = found_job(store, job)
                    version = f"{version} {study}"
                merged = merge_noted(
                    store, job, settings.stream(), progress, run, context.log.warning
                )
                stop_if_run_is_over(context)
                point_at(store, job, merged, run)
                _report(context, batch, version, points, merged, merge.recipe)
        return batch.result()

    return merged_checkpoint


_KEPT = {
    "champion": "They are virtual: planned, merged when they are scored, and only the champion is"
    " written.",
    "all": "All are written.",
    "none": "They are virtual: planned, merged when they are scored, and none is written but by"
    " `ronghe materialize`.",
}


def _report(
    context: dg.AssetExecutionContext,
    batch: Batch,
    code_version: str,
    points: Mapping[str, dg.MultiPartitionKey],
    merged: MergedSet,
    recipe: Recipe,
) -> None:
    """Tell Dagster of each checkpoint of one set, and its log of the whole set."""
    for checkpoint in merged.checkpoints:
        version = data_version(code_version, merged, checkpoint)
        batch.report(points[checkpoint.coefficient], version, _metadata(merged, checkpoint))
    for warning in (*merged.warnings, *_licence_warnings(recipe, merged)):
        context.log.warning(f"{merged.expert_set}: {shown(warning)}")
    context.log.info(_sentence(merged))


def data_version(code_version: str, merged: MergedSet, point: MergedCheckpoint) -> str:
    """Hash what a set was merged from: the recipe without its sweep, and the inputs.

    That part is the set's own, whichever coefficients a run held. The other is the checkpoint's
    digest, so that a name in the store that points elsewhere is noticed.
    """
    sets = [(merged.expert_set, sorted(merged.inputs.items()))]
    identity = json.dumps([code_version, sets], ensure_ascii=False)
    return checkpoint_version(blake3(identity.encode()).hexdigest(), point.artifact.digest)


def _metadata(merged: MergedSet, point: MergedCheckpoint) -> dict[str, Any]:
    """What is seen of one checkpoint; times and bytes are those of its whole set."""
    told = {"warnings": listed(merged.warnings)} if merged.warnings else {}
    told |= of_licence(merged.licence)
    if point.artifact.virtual:
        return {**of_artifact(point.artifact, point.memoized), **of_masks(merged.masks), **told}
    return {
        **of_artifact(point.artifact, point.memoized),
        **of_masks(merged.masks),
        "tensors reused": 0 if point.memoized else merged.reused,
        "tensors resumed": 0 if point.memoized else merged.resumed,
        **of_work(merged.seconds, merged.bytes_read + merged.bytes_written),
        **told,
    }


def _licence_warnings(recipe: Recipe, merged: MergedSet) -> list[str]:
    """What keeps the checkpoints of a set from being published, if anything does."""
    if merged.licence is None:
        return []
    return [
        f"the licences {each.id} do not go together: {each.because}; nothing that is merged of them"
        " becomes champion or is pushed, unless the recipe lists it in accept_licence_conflicts"
        for each in merged.licence.open_conflicts(recipe.accept_licence_conflicts)
    ]


def _sentence(merged: MergedSet) -> str:
    made = sum(not each.memoized for each in merged.checkpoints)
    if made and not merged.seconds:
        return (
            f"{merged.expert_set}: {made} checkpoints planned and not written (virtual: they are"
            f" merged when they are scored), {len(merged.checkpoints) - made} found"
        )
    return (
        f"{merged.expert_set}: {made} checkpoints merged in {merged.seconds:.2f} s"
        f" ({merged.megabytes_per_second:.0f} MB/s; {merged.reused} of {merged.tensors} tensors"
        f" copied from the earlier ones; resumed: {merged.resumed} of {merged.tensors} tensors),"
        f" {len(merged.checkpoints) - made} found"
    )

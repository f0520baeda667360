"""upstream_run_step and run_step: the steps of training runs, found out there, and pulled."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import dagster as dg

from assets.frame.batches import Report, each_partition
from assets.frame.display import of_artifact, of_work, tell
from assets.frame.progress_log import log_progress
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.withdrawal_checks import check_partitions, spec
from assets.work import names
from assets.work.upstream.entries import TrainingRun, run_and_step
from assets.work.upstream.training_runs import FoundSteps, find_steps, pull_step, step_revisions
from merge_ops.errors import shown

UPSTREAM = "upstream_run_step"
Runs = Mapping[str, TrainingRun]


def build_upstream_run_step(
    runs: Runs, partitions: dg.DynamicPartitionsDefinition
) -> dg.SourceAsset:
    """Build the observable source asset, one partition for each step that was ever found."""

    @dg.observable_source_asset(
        name=UPSTREAM,
        partitions_def=partitions,
        group_name="training_runs",
        description="Steps of training runs as they are out there. The data version is the"
        " revision: a commit, an ETag, or a hash of the content. One run looks at all of them.",
    )
    def upstream_run_step(
        context: dg.OpExecutionContext, settings: RunSettings
    ) -> dg.DataVersionsByPartition:
        folder = Path(settings.catalog_folder)
        found = take_in(context.instance, runs, partitions, folder)
        revisions, faults = step_revisions(runs, found, folder)
        for name, fault in (*found.faults.items(), *faults.items()):
            tell(context.log, f"training run '{name}': {shown(fault, lines=True)}")
        for name, why in found.unready.items():
            context.log.info(f"{name} does not count yet: {shown(why, lines=True)}")
        return dg.DataVersionsByPartition(revisions)

    return upstream_run_step


def take_in(
    instance: dg.DagsterInstance,
    runs: Runs,
    partitions: dg.DynamicPartitionsDefinition,
    folder: Path,
) -> FoundSteps:
    """Find the steps of runs, and make the new ones partitions; return what was found.

    Steps of runs that left the catalog leave the partitions. A step that is gone out there stays:
    what was pulled of it is kept.
    """
    name = str(partitions.name)
    known = frozenset(instance.get_dynamic_partitions(name))
    for gone in sorted(each for each in known if run_and_step(each)[0] not in runs):
        instance.delete_dynamic_partition(name, gone)
    found = find_steps(runs, folder, known)
    new = [each for each in found.steps if each not in known]
    if new:
        instance.add_dynamic_partitions(name, new)
    return found


def build_run_step(
    runs: Runs, partitions: dg.DynamicPartitionsDefinition, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the asset `run_step`, one partition for each step of a training run."""

    @team_asset(
        names.RUN_STEP,
        condition,
        deps=[dg.AssetDep(UPSTREAM)],
        partitions=partitions,
        group="training_runs",
        one_run=True,
        kind="huggingface",
        checks=[spec(names.RUN_STEP, partitions)],
        description="A step of a training run in the artifact store, its headers checked.",
    )
    def run_step(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        store, folder, run = settings.store(), Path(settings.catalog_folder), context.run.run_id

        def pull(name: str) -> Report:
            progress = log_progress(context.log, name)
            pulled = pull_step(store, runs, name, folder, run, context.log.info, progress)
            of_run, step = run_and_step(name)
            return pulled.artifact.digest, {
                **of_artifact(pulled.artifact, pulled.memoized),
                **of_work(pulled.seconds, pulled.artifact.nbytes),
                "run": of_run,
                "step": step,
                "revision": pulled.revision,
                "licence": runs[of_run].licence or "not stated",
                "tensors": pulled.tensors,
                "parameters": pulled.parameters,
            }

        return each_partition(context, pull, check=partial(check_partitions, context, settings))

    return run_step

"""Training runs of a catalog in Dagster: their steps, the windows over them, and who looks.

New steps become dynamic partitions by the sensor here, by the observation that it asks for, and by
`ronghe refresh`: all three take them in by one function (assets/training_runs.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.evidence.run_scores import build_course, build_run_scores
from assets.merged_checkpoints import MergeRecipe
from assets.run_windows import RunWindow, build_run_window
from assets.training_runs import UPSTREAM, build_run_step, build_upstream_run_step
from assets.work import names
from assets.work.upstream.training_runs import find_steps
from orchestration.automation import (
    observe_schedule,
    when_any_input_changes,
    when_inputs_change,
    when_steps_come,
)
from orchestration.catalogs import Catalog, Partitions
from orchestration.recipe_versions import digest_of
from resources.compute import gpu_op_tags

if TYPE_CHECKING:
    from assets.frame.dagster_internals import UnresolvedAssetJobDefinition

UPSTREAM_STEP = dg.AssetKey(UPSTREAM)
OBSERVE_RUNS_JOB, SENSOR = "observe_training_runs", "new_steps_of_training_runs"
LOOK_EVERY = 60
"""Seconds between two looks of the sensor: a folder is listed, or a hub asked once a run."""


@dataclass(frozen=True)
class Watched:
    """What watches training runs; nothing where the catalog has none."""

    jobs: Sequence["UnresolvedAssetJobDefinition"] = field(default_factory=list[Any])
    schedules: Sequence[dg.ScheduleDefinition] = field(default_factory=list[Any])
    sensors: Sequence[dg.SensorDefinition] = field(default_factory=list[Any])


def training_run_assets(partitions: Partitions) -> Iterator[Any]:
    """Yield the assets of the catalog's runs, and of the windows over them."""
    catalog = partitions.catalog
    if not catalog.runs:
        return
    yield build_upstream_run_step(catalog.runs, partitions.run_steps)
    yield build_run_step(catalog.runs, partitions.run_steps, when_inputs_change())
    for window in run_windows(partitions):
        yield build_run_window(window, when_steps_come())
    suites = _sound_suites(catalog)
    if suites:
        digests = {run: [digest for _, digest in each] for run, each in suites.items()}
        paths = {run: [path for path, _ in each] for run, each in suites.items()}
        shape, condition = partitions.run_steps, when_inputs_change()
        yield build_run_scores(paths, shape, digest_of(digests), condition, gpu_op_tags())


def course_assets(catalog: Catalog, merges: Sequence[MergeRecipe]) -> Iterator[Any]:
    """Yield the course of every recipe whose result is windows, and scored on a sound suite."""
    for merge in merges:
        recipe = merge.recipe
        if recipe.window is not None and recipe.suite in catalog.suite_digests:
            suite = catalog.suites[str(recipe.suite)]
            yield build_course(merge, suite, when_any_input_changes())


def _sound_suites(catalog: Catalog) -> dict[str, list[tuple[Path, str]]]:
    """The suites of each run's windows that can be asked: file and digest."""
    digests = catalog.suite_digests
    return {
        run: [(catalog.suites[name], digests[name]) for name in suites if name in digests]
        for run, suites in catalog.suites_of_runs.items()
    }


def run_windows(partitions: Partitions) -> Iterator[RunWindow]:
    """Yield the windows of every document that has one."""
    for steps in partitions.catalog.files.values():
        made = steps.result.name
        for document in steps.recipes:
            if document.window is not None:
                of_result = document is steps.result
                merged = (
                    names.merged_checkpoint(made) if of_result else names.step(made, document.name)
                )
                shape = partitions.windows_of(steps, document)
                yield RunWindow(made, document, names.window(merged), shape)


def training_run_definitions(
    partitions: Partitions, executor: dg.ExecutorDefinition | None
) -> Watched:
    """Return the job that looks at every step, and the sensor that finds new ones."""
    if not partitions.catalog.runs:
        return Watched()
    job = dg.define_asset_job(
        OBSERVE_RUNS_JOB,
        selection=dg.AssetSelection.assets(UPSTREAM_STEP),
        description="Look whether training runs have new steps, or any step changed.",
        executor_def=executor,
    )
    return Watched([job], [observe_schedule(job, UPSTREAM_STEP)], [_sensor(partitions, job)])


def _sensor(partitions: Partitions, job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    catalog, definition = partitions.catalog, partitions.run_steps

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=LOOK_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Adds new steps of training runs as partitions. The conditions then pull them,"
        " and make the windows again that hold them.",
    )
    def new_steps(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return look_for_steps(context.instance, catalog, definition)

    return new_steps


def look_for_steps(
    instance: dg.DagsterInstance, catalog: Catalog, definition: dg.DynamicPartitionsDefinition
) -> dg.SensorResult | dg.SkipReason:
    """Ask for the partitions of new steps, and for one look at their revisions."""
    known = frozenset(instance.get_dynamic_partitions(str(definition.name)))
    found = find_steps(catalog.runs, catalog.folder, known)
    new = [each for each in found.steps if each not in known]
    if not new:
        told = "; ".join(found.faults.values())
        return dg.SkipReason(told or "no training run has a new step")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=new[-1])],
        dynamic_partitions_requests=[definition.build_add_request(new)],
    )

"""run_scores and <recipe>/course: what steps of training runs can do, beside windows over them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from blake3 import blake3

from assets.frame.batches import Report, each_partition
from assets.frame.display import drawn, number, of_artifact, table
from assets.frame.progress_log import log_progress
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.merged_checkpoints import MergeRecipe
from assets.work import names
from assets.work.scoring.run_courses import PICTURE, course_of, publish_course
from assets.work.scoring.scoring import SCORES, Scoring, score_model
from assets.work.upstream.entries import run_and_step

NOT_ASKED = "not asked"
"""Data version of a step whose run no recipe with a suite has windows over."""


def build_run_scores(
    suites: Mapping[str, Sequence[Path]],
    partitions: dg.PartitionsDefinition,
    code_version: str,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
) -> dg.AssetsDefinition:
    """Build the scores of the steps themselves; `suites` are those of each run's windows."""

    @team_asset(
        names.RUN_SCORES,
        condition,
        deps=[dg.AssetDep(names.RUN_STEP)],
        partitions=partitions,
        group="training_runs",
        code_version=code_version,
        gpu=op_tags,
        one_run=True,
        kind="huggingface",
        description="Scores of the steps themselves, which every window over them has to beat.",
    )
    def run_scores(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from assets.work.suite_files import load_suite

        store, stream, run = settings.store(), settings.stream(), context.run.run_id

        def score(name: str) -> Report:
            digests: list[str] = []
            shown: dict[str, Any] = {}
            for path in suites.get(run_and_step(name)[0], ()):
                suite = load_suite(path, fetch=True)
                scoring = Scoring(suite, settings.device, settings.threads, run)
                progress = log_progress(context.log, name, unit="items")
                scored = score_model(store, name, None, scoring, stream, progress)
                digests.append(scored.artifact.digest)
                shown[f"{suite.name}: test mean"] = number(scored.scores.mean().value)
                store.point(names.RUN_SCORES, name, SCORES, digests[-1], run=run)
            version = blake3("\n".join(digests).encode()).hexdigest() if digests else NOT_ASKED
            return version, shown

        return each_partition(context, score)

    return run_scores


def build_course(
    merge: MergeRecipe, suite: Path, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the course of a recipe whose result is windows over a training run."""
    window = merge.recipe.window
    assert window is not None  # whoever calls this has looked

    @team_asset(
        names.course(merge.name),
        condition,
        deps=[dg.AssetDep(names.scores(merge.name).split("/")), dg.AssetDep(names.RUN_SCORES)],
        group=merge.name,
        description=f"Scores of the windows of recipe {merge.name} beside those of the steps"
        " themselves, over the steps of the run.",
        kind="markdown",
    )
    def course(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        from assets.work.suite_files import load_suite

        store, run = settings.store(), context.run.run_id
        points = {str(key): str(key).partition("|")[0] for key in merge.grid.get_partition_keys()}
        found = course_of(store, merge.name, str(window.run), points, load_suite(suite))
        artifact = publish_course(store, merge.name, found, run)
        shown = drawn(context.log, names.COURSE, partial(artifact.read_bytes, PICTURE))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata={
                **of_artifact(artifact, False),
                "merged against raw": shown,
                "scores over steps": table(found.rows()),
            },
        )

    return course

"""The one Definitions: the catalog's assets, their checks, what runs when, and where.

Loads with no environment, reads no weight and contacts no store.
"""

import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from blake3 import blake3

from assets.champions import build_champion
from assets.checks import build_checkpoint_check
from assets.leaderboard import build_leaderboard
from assets.merge_plans import build_merge_plan
from assets.merged_checkpoints import MergeRecipe, build_merged_checkpoint
from assets.models import build_model
from assets.recipe_steps import RecipeStep, build_recipe_step
from assets.run_settings import RunSettings
from assets.scores import build_model_scores, build_scores
from assets.task_vectors import build_task_vector
from assets.upstream import build_upstream_model
from assets.work.ranking import Contest, RankedRecipe
from merge_ops.plans.plan import PLAN_VERSION
from merge_ops.recipes import Recipe
from orchestration.automation import (
    automation_sensor,
    observe_job,
    observe_schedule,
    when_any_input_changes,
    when_inputs_change,
)
from orchestration.catalogs import COEFFICIENT, EXPERTS, Catalog, Partitions, load_catalog
from orchestration.executors import step_executor
from orchestration.settings import Settings, load_settings
from resources.compute import gpu_op_tags


def build_definitions(settings: Settings) -> dg.Definitions:
    """Build everything of one catalog. Raises CatalogError with every fault."""
    with warnings.catch_warnings():
        # Partitioned checks, observable sources and backfill policies: tried with this release.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        catalog = load_catalog(settings.catalog)
        partitions = Partitions(catalog)
        merges, steps = _merges(catalog, partitions), _steps(catalog, partitions)
        checked = [*((step.key, step.sets) for step in steps), *((m.key, m.grid) for m in merges)]
        job = observe_job()
        return dg.Definitions(
            assets=list(_assets(catalog, merges, steps)),
            asset_checks=[build_checkpoint_check(*each) for each in checked],
            jobs=[job],
            schedules=[observe_schedule(job)],
            sensors=[automation_sensor()],
            resources={"settings": run_settings(settings)},
            executor=step_executor(settings),
        )


def run_settings(settings: Settings) -> RunSettings:
    """Make the resource that every asset takes."""
    return RunSettings(
        store_uri=settings.store,
        catalog_folder=str(settings.catalog),
        device=settings.device,
        threads=settings.threads,
        memory=settings.memory,
    )


def contest_of(catalog: Catalog) -> Contest:
    """Collect what of a catalog is scored, for the leaderboard and the champions."""
    partitions = Partitions(catalog)
    recipes = [recipe for recipe in catalog.recipes.values() if recipe.suite]
    used = {recipe.suite: catalog.suites[recipe.suite] for recipe in recipes if recipe.suite}
    return Contest(
        bases=[name for name, model in catalog.models.items() if model.base is None],
        experts=catalog.experts,
        recipes=[_ranked(recipe, partitions) for recipe in recipes],
        suites=dict(sorted(used.items())),
    )


def _assets(catalog: Catalog, merges: list[MergeRecipe], steps: list[RecipeStep]) -> Iterator[Any]:
    yield from _shared_assets(catalog)
    for step in steps:
        yield build_recipe_step(step, when_inputs_change(), gpu_op_tags())
    for merge in merges:
        yield from _recipe_assets(catalog, merge)
    yield from _results(catalog)


def _shared_assets(catalog: Catalog) -> Iterator[Any]:
    partitions, condition = Partitions(catalog), when_inputs_change()
    bases = {name: model.base for name, model in catalog.models.items() if model.base}
    yield build_upstream_model(catalog.models, partitions.models)
    yield build_model(catalog.models, partitions.models, condition)
    yield build_task_vector(bases, partitions.experts, partitions.model_to_expert, condition)


def _merges(catalog: Catalog, partitions: Partitions) -> list[MergeRecipe]:
    return [
        MergeRecipe(
            steps=steps,
            base=catalog.base_of(steps.result),
            grid=partitions.grid_of(steps.result),
            deps=partitions.inputs_of(steps, steps.result),
            licences={name: model.licence for name, model in catalog.models.items()},
            code_version=_recipe_version(steps.result),
        )
        for steps in catalog.files.values()
    ]


def _steps(catalog: Catalog, partitions: Partitions) -> list[RecipeStep]:
    return [
        RecipeStep(
            recipe=steps.result.name,
            steps=steps.up_to(step),
            base=catalog.base_of(steps.result),
            sets=partitions.sets_of(steps.result) if steps.takes_experts(step) else None,
            deps=partitions.inputs_of(steps, step),
            licences={name: model.licence for name, model in catalog.models.items()},
            code_version=_recipe_version(step),
        )
        for steps in catalog.files.values()
        for step in steps.earlier
    ]


def _recipe_assets(catalog: Catalog, merge: MergeRecipe) -> Iterator[Any]:
    partitions, condition = Partitions(catalog), when_inputs_change()
    if catalog.sets_of(merge.recipe):
        sets, mapping = partitions.sets_of(merge.recipe), partitions.expert_to_sets(merge.recipe)
        yield build_merge_plan(merge.name, merge.base, sets, mapping, condition)
    yield build_merged_checkpoint(merge, condition, gpu_op_tags())
    suite = catalog.suite_of(merge.recipe)
    if suite is not None:
        same_point = partitions.same_point()
        version = _suite_version(suite)
        yield build_scores(merge, suite, version, same_point, condition, gpu_op_tags())


def _results(catalog: Catalog) -> Iterator[Any]:
    contest, condition = contest_of(catalog), when_any_input_changes()
    if not contest.recipes:
        return
    versions = [_suite_version(path) for path in contest.suites.values()]
    suites = None if None in versions else _digest(versions)
    partitions = Partitions(catalog)
    bases = {name: model.base for name, model in catalog.models.items() if model.base}
    yield build_model_scores(
        contest.suites,
        bases,
        partitions.models,
        partitions.model_to_scores,
        suites,
        when_inputs_change(),
        gpu_op_tags(),
    )
    live = [contest.bases, contest.experts, [(r.name, sorted(r.points)) for r in contest.recipes]]
    yield build_leaderboard(contest, _digest(live), condition)
    for recipe in contest.recipes:
        yield build_champion(contest, recipe, _digest(dict(recipe.gate)), when_inputs_change())


def _ranked(recipe: Recipe, partitions: Partitions) -> RankedRecipe:
    keys = partitions.grid_of(recipe).get_partition_keys()
    points = {
        str(key): (key.keys_by_dimension[EXPERTS], key.keys_by_dimension[COEFFICIENT])
        for key in keys
    }
    return RankedRecipe(
        recipe.name, str(recipe.suite), _is_plain_average(recipe), points, recipe.gate
    )


def _is_plain_average(recipe: Recipe) -> bool:
    """Whether a recipe is the mean of the experts and nothing else."""
    weight = recipe.parameters.get("weight")
    plain = isinstance(weight, int | float) and recipe.parameters.get("normalize", True) is True
    return plain and recipe.merge_method == "linear" and not (recipe.models or recipe.sweep)


def _recipe_version(recipe: Recipe) -> str:
    """Changes with whatever in a recipe changes every merge. Sweep and sets are partitions."""
    return _digest(
        [
            [recipe.method.name, recipe.method.version, recipe.seed if recipe.method.random else 0],
            [recipe.base_model, [dataclasses.asdict(section) for section in recipe.sections]],
            bool(recipe.experts),
            [dict(recipe.parameters), recipe.dtype, recipe.out_dtype],
            [_vocabulary_of(recipe), PLAN_VERSION],
        ]
    )


def _vocabulary_of(recipe: Recipe) -> list[Any]:
    written = dict(recipe.tokenizer.written) if recipe.tokenizer else None
    return [written, recipe.chat_template]


def _suite_version(path: Path) -> str | None:
    """The suite's digest; None while its items are not there yet, or it has faults.

    Scoring reports the faults. Definitions load before the benchmark items are prepared.
    """
    from assets.work.suite_files import load_suite
    from eval_ops.errors import EvalError

    try:
        return load_suite(path).digest
    except EvalError:
        return None


def _digest(value: Mapping[str, Any] | list[Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake3(text.encode()).hexdigest()[:32]


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions of the environment's settings; Dagster loads this."""
    return build_definitions(load_settings())

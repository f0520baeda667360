"""The one Definitions: the catalog's assets, their checks, what runs when, and where.

Loads with no environment, reads no weight and contacts no store.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.broken_parts import build_broken_part
from assets.checks import build_checkpoint_check
from assets.evidence.champions import build_champion
from assets.evidence.checked_suites import build_checked_suite, checked_suite_key
from assets.evidence.imported_scores import build_imported_scores
from assets.evidence.leaderboard import build_leaderboard
from assets.evidence.scores import build_model_scores, build_scores
from assets.evidence.search import build_search
from assets.frame.run_settings import RunSettings
from assets.frame.words import with_words
from assets.merge_plans import build_merge_plan
from assets.merged_checkpoints import MergeRecipe, build_merged_checkpoint
from assets.models import build_model
from assets.recipe_steps import RecipeStep, build_recipe_step
from assets.task_vectors import build_task_vector
from assets.upstream import build_upstream_model
from assets.work.ranking.collecting import Contest, RankedRecipe
from assets.work.ranking.kept_rows import Broken
from merge_ops.recipes import Recipe
from orchestration.announcements import announce
from orchestration.automation import (
    UPSTREAM,
    observe_job,
    observe_schedule,
    when_any_input_changes,
    when_inputs_change,
    when_it_can,
)
from orchestration.catalogs import Catalog, Partitions, load_catalog
from orchestration.catalogs.catalog_name import catalog_name
from orchestration.daemon_sensor import RefreshSensor
from orchestration.executors import looking_executor, step_executor
from orchestration.recipe_versions import digest_of, is_plain_average, recipe_version
from orchestration.settings import Settings, load_settings
from orchestration.site_asset import site_asset
from orchestration.training_runs import (
    course_assets,
    training_run_assets,
    training_run_definitions,
)
from resources.compute import gpu_op_tags

KINDS = ("recipe", "suite", "model")
"""Of broken parts, as a contest names them."""
BROKEN = "broken"
"""Code version of what a broken suite would score: another one once it is sound again."""


def build_definitions(settings: Settings, tell: bool = False) -> dg.Definitions:
    """Build everything of one catalog that can be used, and an asset for each part that cannot.

    With `tell` the broken parts are also said on the log. Raises CatalogError where no model can be
    told from models.yaml.
    """
    with warnings.catch_warnings():
        # Partitioned checks, observable sources and backfill policies: tried with this release.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        catalog = load_catalog(settings.catalog)
        if tell:
            _tell(catalog)
        name = catalog_name(settings, catalog.declared_name)
        settings = dataclasses.replace(settings, catalog_name=name)
        partitions = Partitions(catalog, name)
        merges, steps = _merges(catalog, partitions), _steps(catalog, partitions)
        checked = [*((step.key, step.sets) for step in steps), *((m.key, m.grid) for m in merges)]
        looking = looking_executor(settings)
        job, watched = observe_job(looking), training_run_definitions(partitions, looking)
        return dg.Definitions(
            assets=list(_assets(partitions, merges, steps, name)),
            asset_checks=[build_checkpoint_check(*each) for each in checked],
            jobs=[job, *watched.jobs],
            schedules=[observe_schedule(job, UPSTREAM), *watched.schedules],
            sensors=[RefreshSensor(), *watched.sensors],
            resources={"settings": run_settings(settings)},
            executor=step_executor(settings),
        )


def run_settings(settings: Settings) -> RunSettings:
    """Make the resource that every asset takes."""
    return RunSettings(
        store_uri=settings.store,
        catalog_folder=str(settings.catalog),
        catalog=settings.catalog_name or "",
        device=settings.device,
        threads=settings.threads,
        memory=settings.memory,
    )


def _tell(catalog: Catalog) -> None:
    """Say on the log what is broken: whoever loads a catalog (`dg check defs`, the UI) sees it."""
    for part in catalog.broken.values():
        if part.told_early:
            dg.get_dagster_logger("catalog").warning("%s", part)


def contest_of(catalog: Catalog) -> Contest:
    """Collect what of a catalog is scored, for the leaderboard and the champions."""
    return _contest(Partitions(catalog))


def merges_of(catalog: Catalog) -> list[MergeRecipe]:
    """Return what a catalog's recipes merge."""
    return _merges(catalog, Partitions(catalog))


def _contest(partitions: Partitions) -> Contest:
    catalog = partitions.catalog
    recipes = [recipe for recipe in catalog.recipes.values() if recipe.suite]
    used = {recipe.suite: catalog.suites[recipe.suite] for recipe in recipes if recipe.suite}
    return Contest(
        bases=[name for name, model in catalog.models.items() if model.base is None],
        experts=catalog.experts,
        recipes=[_ranked(recipe, partitions) for recipe in recipes],
        suites=dict(sorted(used.items())),
        imported={name: path for name, (path, _) in catalog.imported.items()},
        runs=catalog.suites_of_runs,
        broken=Broken(*({n: str(p) for n, p in catalog.broken_of(k).items()} for k in KINDS)),
    )


def _assets(
    partitions: Partitions, merges: list[MergeRecipe], steps: list[RecipeStep], name: str
) -> Iterator[Any]:
    for part in partitions.catalog.broken.values():
        yield build_broken_part(part.kind, part.name, str(part), when_inputs_change())
    catalog = partitions.catalog
    yield from _shared_assets(partitions)
    yield from training_run_assets(partitions)
    yield from _checked_suites(partitions.catalog)
    for name, (path, digest) in partitions.catalog.imported.items():
        yield build_imported_scores(name, path, digest, when_inputs_change())
    for step in steps:
        made = build_recipe_step(step, when_inputs_change(), gpu_op_tags())
        yield with_words(made, step.steps.result.title, step.steps.result.description)
    for merge in merges:
        recipe = merge.recipe
        for made in _recipe_assets(partitions, merge):
            yield with_words(made, recipe.title, recipe.description)
    yield from _results(partitions)
    yield from course_assets(catalog, merges)
    yield site_asset(partitions, _contest(partitions), name)


def _shared_assets(partitions: Partitions) -> Iterator[Any]:
    catalog, condition = partitions.catalog, when_inputs_change()
    bases = {name: model.base for name, model in catalog.models.items() if model.base}
    yield build_upstream_model(catalog.models, partitions.models)
    yield build_model(catalog.models, partitions.models, condition)
    yield build_task_vector(bases, partitions.experts, partitions.model_to_expert, condition)


def _checked_suites(catalog: Catalog) -> Iterator[Any]:
    for name in sorted({recipe.suite for recipe in catalog.recipes.values() if recipe.suite}):
        if name in catalog.suites_of_tasks and name in catalog.suite_digests:
            version, path = catalog.suite_digests[name], catalog.suites[name]
            yield build_checked_suite(name, path, version, when_inputs_change())


def _merges(catalog: Catalog, partitions: Partitions) -> list[MergeRecipe]:
    return [
        MergeRecipe(
            steps=steps,
            base=catalog.base_opened(steps.result),
            grid=partitions.grid_of(steps.result),
            deps=partitions.inputs_of(steps, steps.result),
            licences=catalog.licences,
            code_version=recipe_version(steps.result),
        )
        for steps in catalog.files.values()
    ]


def _steps(catalog: Catalog, partitions: Partitions) -> list[RecipeStep]:
    return [
        RecipeStep(
            recipe=steps.result.name,
            steps=steps.up_to(step),
            base=catalog.base_opened(steps.result),
            sets=partitions.sets_of(steps.result) if steps.takes_experts(step) else None,
            deps=partitions.inputs_of(steps, step),
            licences=catalog.licences,
            code_version=recipe_version(step),
        )
        for steps in catalog.files.values()
        for step in steps.earlier
    ]


def _recipe_assets(partitions: Partitions, merge: MergeRecipe) -> Iterator[Any]:
    catalog, condition = partitions.catalog, when_inputs_change()
    if catalog.takes_experts(merge.recipe):
        sets, mapping = partitions.sets_of(merge.recipe), partitions.expert_to_sets(merge.recipe)
        yield build_merge_plan(merge.name, merge.base, sets, mapping, condition)
    if merge.recipe.is_searched and merge.recipe.suite in catalog.suite_digests:
        yield _search(partitions, merge, condition)
    yield build_merged_checkpoint(merge, condition, gpu_op_tags())
    suite = catalog.suite_of(merge.recipe)
    if suite is not None:
        named = str(merge.recipe.suite)
        same_point, version = partitions.same_point(), catalog.suite_digests.get(named)
        if version is None:
            condition = when_it_can(condition)
        deps = _checked_before(catalog, named)
        version = version or BROKEN
        if merge.recipe.gate.get("early_stopping"):
            version = f"{version} early"  # what was left is to be asked the rest without it
        peers = [n for n, each in catalog.recipes.items() if each.suite == merge.recipe.suite]
        made = build_scores(
            merge, suite, version, same_point, condition, gpu_op_tags(), deps, peers
        )
        yield _with_suite(catalog, named, made)


def _with_suite(catalog: Catalog, suite: str, made: dg.AssetsDefinition) -> dg.AssetsDefinition:
    words = catalog.suite_words.get(suite)
    return with_words(made, None, words.description, words.titles) if words else made


def _search(
    partitions: Partitions, merge: MergeRecipe, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """The studies of a recipe that searches: again where its inputs, its suite or it changed."""
    catalog, recipe = partitions.catalog, merge.recipe
    suite, sets = catalog.suites[str(recipe.suite)], partitions.sets_of(recipe)
    suite_digest = catalog.suite_digests[str(recipe.suite)]
    asked: Any = dict(recipe.search) if recipe.search else recipe.soup
    version = digest_of([merge.code_version, asked, recipe.seed, suite_digest])
    deps = _checked_before(catalog, str(recipe.suite))
    return build_search(merge, suite, version, sets, condition, gpu_op_tags(), deps)


def _checked_before(catalog: Catalog, suite: str) -> list[dg.AssetDep]:
    """The check of a suite's tasks, which comes before scores on it; none where it needs none."""
    checked = suite in catalog.suites_of_tasks and suite in catalog.suite_digests
    return [dg.AssetDep(checked_suite_key(suite))] if checked else []


def _results(partitions: Partitions) -> Iterator[Any]:
    catalog, condition = partitions.catalog, when_any_input_changes()
    contest = _contest(partitions)
    if not contest.recipes and not contest.broken.recipes:
        return
    versions = [catalog.suite_digests.get(name, BROKEN) for name in contest.suites]
    sound = {name: path for name, path in contest.suites.items() if name in catalog.suite_digests}
    models_condition = when_inputs_change() if sound else when_it_can(when_inputs_change())
    bases = {name: model.base for name, model in catalog.models.items() if model.base}
    yield build_model_scores(
        sound,
        bases,
        partitions.models,
        partitions.model_to_scores,
        digest_of(versions),
        models_condition,
        gpu_op_tags(),
    )
    points = [
        (r.name, partitions.points_of(catalog.recipes[r.name]).digest) for r in contest.recipes
    ]
    live: list[Any] = [contest.bases, contest.experts, points]
    if catalog.broken or BROKEN in versions:
        live += [dataclasses.asdict(contest.broken), versions]
    if catalog.imported:
        live.append({name: digest for name, (_, digest) in catalog.imported.items()})
    yield build_leaderboard(contest, digest_of(live), condition)
    for recipe in contest.recipes:
        named, accepted = catalog.recipes[recipe.name], list(recipe.accepted_conflicts)
        said = {"keep": named.keep} if named.keep else {}
        said |= {"accepted": accepted} if accepted else {}
        version = digest_of(dict(recipe.gate) | said)
        made = build_champion(contest, recipe, version, when_inputs_change(), announce)
        yield with_words(made, named.title, named.description)


def _ranked(recipe: Recipe, partitions: Partitions) -> RankedRecipe:
    points = partitions.points_of(recipe)
    return RankedRecipe(
        recipe.name,
        str(recipe.suite),
        is_plain_average(recipe),
        points,
        recipe.gate,
        recipe.kept,
        recipe.accept_licence_conflicts,
        not partitions.catalog.takes_experts(recipe),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions of the environment's settings; Dagster loads this."""
    return build_definitions(load_settings(), tell=True)

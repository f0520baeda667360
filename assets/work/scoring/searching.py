"""Searching: candidates of one expert set are proposed, merged into memory, scored, and proposed
anew from what came out. Knows no Dagster.

Each point follows from the seed and the trials before it, and the scores of a candidate are kept
under its digest. So a search that was killed finds what it had scored, and goes on as it would
have: nothing else is remembered on the way. Only validation items choose. The winner is the best
trial, or the centre of those that are about as good (eval_ops.search.winners).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.merging import MergeJob
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.tries import STUDY as STUDY
from assets.work.scoring.tries import STUDY_FILE, SearchedSet, Tell, Tries, publish_study
from eval_ops.errors import SearchError
from eval_ops.search import (
    Point,
    SearchSettings,
    SearchSpace,
    Study,
    Trial,
    check_search,
    propose,
    space_of,
    winners,
)

if TYPE_CHECKING:
    from assets.work.scoring.scoring import Scoring
    from merge_ops.recipes import Recipe
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore


def search_set(
    store: "ArtifactStore",
    job: MergeJob,
    scoring: "Scoring",
    stream: "StreamSettings",
    tell: Tell | None = None,
) -> SearchedSet:
    """Search the best point of a job's expert set, publish the study, and point to it.

    Raises SearchError where the recipe's search is wrong, SuiteError where its suite has no
    validation items, EvalError where not one candidate could be scored.
    """
    started = time.perf_counter()
    recipe = job.steps.result
    settings = check_search(recipe.search, f"recipe {recipe.name}: search")
    experts = job.expert_set.split("+") if job.expert_set else []
    space = space_of(settings, experts, f"recipe {recipe.name}: search")
    with CandidateScorer(store, job, scoring, stream) as scorer:

        def placed(point: Point) -> "Recipe":
            return at_point(recipe, space, point)

        tries = Tries(scorer, placed, settings.objectives, settings.measure)
        ended = _run(tries, recipe, settings, space, tell)
        centre, centre_wins = _centre(tries, settings, space)
    study = Study(
        settings.sampler,
        recipe.seed,
        settings.objectives,
        tuple(tries.trials),
        ended,
        settings.model_dump(mode="json"),
        centre,
        centre_wins,
    )
    artifact = publish_study(store, job, study, scoring.run)
    return SearchedSet(artifact, study, tries.found, time.perf_counter() - started, tries.test)


def found_job(store: "ArtifactStore", job: MergeJob) -> tuple[MergeJob, str]:
    """Return a job at the point that its search found, and the digest of the study that says so.

    Raises MissingArtifactError where nothing was searched yet, ScoresError where the study cannot
    be read, SearchError where it is of other parameters than the recipe has now.
    """
    from resources.errors import MissingArtifactError

    recipe = job.steps.result
    artifact = names.resolve(store, names.search(recipe.name), job.expert_set)
    if artifact is None:
        raise MissingArtifactError(
            f"{names.search(recipe.name)} [{job.expert_set}] is not in artifact store {store.uri};"
            " materialize it first"
        )
    winner = Study.from_json(artifact.read_bytes(STUDY_FILE)).winner
    assert winner is not None  # none is published without one
    if recipe.soup:
        steps = job.steps.with_result(soup_at(recipe, winner.point))
        return dataclasses.replace(job, steps=steps), artifact.digest
    settings = check_search(recipe.search, f"recipe {recipe.name}: search")
    space = space_of(settings, job.expert_set.split("+"), f"recipe {recipe.name}: search")
    steps = job.steps.with_result(at_point(recipe, space, winner.point))
    return dataclasses.replace(job, steps=steps), artifact.digest


def soup_at(recipe: "Recipe", point: Point) -> "Recipe":
    """Return the recipe of a soup: the average of the models that the point gives a weight."""
    weights = {name[len("weight[") : -1]: value for name, value in point.items()}
    return recipe.averaging({name: float(value) for name, value in weights.items() if value})


def at_point(recipe: "Recipe", space: SearchSpace, point: Point) -> "Recipe":
    """Return a recipe at one point of its space.

    A parameter by expert goes to the models, one by layers becomes a gradient, and one by component
    a list of conditions that ends with the rest. Raises SearchError where the point is of another
    space.
    """
    wanted = [dimension.name for dimension in space.dimensions]
    if sorted(wanted) != sorted(point):
        told = f"the study is of {', '.join(point)}, the recipe's search of {', '.join(wanted)}"
        raise SearchError(f"recipe {recipe.name}", [f"{told}; search again"])
    given: Mapping[str, Any] = recipe.search["parameters"]
    shared: dict[str, Any] = {}
    by_model: dict[str, dict[str, Any]] = {}
    for dimension in space.dimensions:
        value, per = point[dimension.name], given[dimension.parameter].get("per")
        if per is None:
            shared[dimension.parameter] = value
        elif per == "expert":
            by_model.setdefault(str(dimension.part), {})[dimension.parameter] = value
        elif per == "layers":
            shared.setdefault(dimension.parameter, []).append(value)
        else:
            condition = {"filter": dimension.part, "value": value}
            rest = {"value": value}
            chosen = condition if dimension.part else rest
            shared.setdefault(dimension.parameter, []).append(chosen)
    return recipe.at(shared, by_model)


def start_of(recipe: "Recipe", space: SearchSpace) -> Point:
    """Return the point where a search begins: the recipe's own values, or its method's.

    What neither gives is the middle of its range.
    """
    given: dict[str, object] = {}
    specs = recipe.method.parameter_specs
    own = {entry.model: entry.parameters for entry in recipe.models}
    for dimension in space.dimensions:
        name = dimension.parameter
        value = recipe.parameters.get(name, specs[name].default if name in specs else None)
        given[dimension.name] = own.get(str(dimension.part), {}).get(name, value)
    return space.start(given)


def at_start(recipe: "Recipe", experts: Sequence[str]) -> "Recipe":
    """Return a recipe as its search begins, or a soup of all experts; any other one as it is.

    It can be planned for the set of these experts. Raises SearchError where the search is wrong.
    """
    if recipe.soup:
        return soup_at(recipe, {f"weight[{name}]": 1 / len(experts) for name in experts})
    if not recipe.search:
        return recipe
    where = f"recipe {recipe.name}: search"
    space = space_of(check_search(recipe.search, where), experts, where)
    return at_point(recipe, space, start_of(recipe, space))


def _run(
    tries: Tries,
    recipe: "Recipe",
    settings: SearchSettings,
    space: SearchSpace,
    tell: Tell | None,
) -> str:
    """Make the trials; return why there are no more."""
    started, start = time.monotonic(), start_of(recipe, space)
    grid = space.grid_size if settings.sampler == "grid" else settings.trials
    wanted = min(settings.trials, grid)
    while len(tries.trials) < wanted:
        if settings.budget.items is not None and tries.asked >= settings.budget.items:
            return "items"
        minutes = settings.budget.minutes
        if minutes is not None and time.monotonic() - started >= 60 * minutes:
            return "minutes"
        point = propose(space, settings, recipe.seed, tries.trials, start)
        assert point is not None  # only a grid has an end, and it is counted above
        tries.add(point)
        if tell is not None:
            tell(len(tries.trials), wanted)
    return "grid" if wanted < settings.trials else "trials"


def _centre(
    tries: Tries, settings: SearchSettings, space: SearchSpace
) -> tuple[Trial | None, bool]:
    """Score the centre of the trials; return it, and whether it wins.

    None where the recipe takes the best trial, or there are not two to lie between.
    """
    numbers = tries.answers.numbers
    if not settings.takes_centre or len(numbers) < 2:
        return None, False
    points = [tries.trials[number].point for number in numbers]
    tried = tries.tried(winners.centre(space, points, tries.answers.answers()))
    numbers = tries.answers.numbers
    if tried.number not in numbers:  # it failed, or is below all that are kept
        return tried, False
    row = numbers.index(tried.number)
    return tried, winners.is_as_good(tries.answers.answers(), row)

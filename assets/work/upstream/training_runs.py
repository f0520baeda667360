"""Training runs of a catalog: their steps, found and pulled, and the windows over them.

Knows no Dagster. A step is a model of the store, called `RUN@STEP`; `run_step [RUN@STEP]` points to
it too. Windows take the steps that are pulled: what is out there and not here yet does not count.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from assets.work import names
from assets.work.upstream.entries import TrainingRun, run_and_step, step_name
from assets.work.upstream.pulling import PulledModel, pull_model
from assets.work.upstream.run_places import RunFolders
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes import Recipe, Steps
from merge_ops.recipes.windows import steps_of_run, with_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from merge_ops.progress import Progress
    from merge_ops.recipes import Coefficient
    from resources.store import Artifact, ArtifactStore

WINDOW_FILE = "window.json"


@dataclass
class FoundSteps:
    """What is out there: the steps of runs, each with its reference, and what is wrong.

    `steps` goes by the names of steps as models (`RUN@STEP`), `unready` says by the same names why
    a step does not count yet, `faults` by run why its steps cannot be found.
    """

    steps: dict[str, str] = field(default_factory=dict[str, str])
    unready: dict[str, str] = field(default_factory=dict[str, str])
    faults: dict[str, str] = field(default_factory=dict[str, str])


def find_steps(
    runs: Mapping[str, TrainingRun], folder: Path, known: frozenset[str] = frozenset()
) -> FoundSteps:
    """List the steps of runs, rising; no weight is read. `folder` is the catalog's.

    A step that is not `known` yet counts once it has whole weights, as far as its headers tell.
    """
    found, places = FoundSteps(), RunFolders(folder)
    for name, run in runs.items():
        try:
            steps = steps_of_run(run.steps, (), places)
        except ValueError as error:
            found.faults[name] = f"models.yaml: run '{name}': steps {error}"
            continue
        for step, reference in sorted(steps.items()):
            called = step_name(name, step)
            why = None if called in known else places.unready(reference)
            if why is None:
                found.steps[called] = reference
            else:
                found.unready[called] = why
    return found


def step_revisions(
    runs: Mapping[str, TrainingRun], found: FoundSteps, folder: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Look up the revision of every step that was found; of the others, what is wrong with them.

    A second look at an unchanged folder reads no weight.
    """
    from assets.work.upstream.pulling import revisions

    models = [_model(runs, called, reference) for called, reference in found.steps.items()]
    return revisions(models, folder)


def pull_step(
    store: "ArtifactStore",
    runs: Mapping[str, TrainingRun],
    called: str,
    folder: Path,
    run: str | None = None,
    tell: "Callable[[str], None] | None" = None,
    progress: "Progress | None" = None,
) -> PulledModel:
    """Pull one step, unless its revision is there, and point `run_step` to it.

    Raises what `pull_model` raises, and RecipeError where the run has no such step any more.
    """
    name, step = run_and_step(called)
    place = runs[name].steps
    try:
        steps = steps_of_run(place, (), RunFolders(folder))
    except ValueError as error:
        raise RecipeError("models.yaml", [Fault(f"run '{name}': steps", str(error))]) from error
    if step not in steps:
        problem = f"has no step {step} any more; what was pulled of it stays"
        raise RecipeError("models.yaml", [Fault(f"run '{name}'", problem)])
    model = runs[name].model_of(step, steps[step])
    pulled = pull_model(store, model, folder, run, None, tell, progress)
    digest, kind = pulled.artifact.digest, pulled.artifact.kind
    store.point(names.RUN_STEP, called, kind, digest, run=run, revision=pulled.revision)
    return pulled


def pulled_steps(store: "ArtifactStore", run: str) -> dict[int, str]:
    """Return the steps of a run that the store has, rising, each with the digest of its model."""
    found: dict[int, str] = {}
    for partition, ref in names.refs_of(store, names.RUN_STEP).items():
        of_run, step = run_and_step(str(partition))
        if of_run == run:
            found[step] = ref.digest
    return dict(sorted(found.items()))


def with_run_steps(store: "ArtifactStore", recipe: Recipe) -> Recipe:
    """Return a recipe whose window takes the pulled steps of its run; others as they are.

    Raises RecipeError where the run lacks steps that the window asks for.
    """
    window = recipe.window
    if window is None or window.found:
        return recipe
    run = str(window.run)
    known = {step: step_name(run, step) for step in pulled_steps(store, run)}
    if not known:
        problem = f"'{run}' has no step in the store yet; `ronghe refresh` pulls those that are"
        raise RecipeError(recipe.subject, [Fault("window.run", f"{problem} there")])
    return with_steps(recipe, known)


def with_all_run_steps(store: "ArtifactStore", steps: Steps, wanted: Collection[str]) -> Steps:
    """Return steps whose windows take the pulled steps of their runs.

    Of the result's sweep the `wanted` coefficients stay, and what else their values give: a window
    that the run is too short for holds up no other.
    """
    if not any(each.window is not None for each in steps.recipes):
        return steps
    earlier = [with_run_steps(store, each) for each in steps.earlier]
    return Steps((*earlier, with_run_steps(store, _narrowed(steps.result, wanted))))


def _narrowed(recipe: Recipe, wanted: Collection[str]) -> Recipe:
    """A window's recipe with just the values of its sweep that the wanted coefficients have."""
    if recipe.window is None or not recipe.sweep:
        return recipe
    points = [each.values for each in recipe.coefficients() if each.id in wanted]
    sweep = {
        key: tuple(value for value in values if any(each[key] == value for each in points))
        for key, values in recipe.sweep.items()
    }
    return replace(recipe, sweep=sweep) if points else recipe


def with_runs(
    licences: Mapping[str, str | None], models: Iterable[str]
) -> Mapping[str, str | None]:
    """Return licences by model, those of steps among `models` too: a step has its run's."""
    steps = [name for name in models if name not in licences and "@" in name]
    return {**licences, **{name: licences.get(name.rpartition("@")[0]) for name in steps}}


@dataclass(frozen=True)
class StudiedWindow:
    """A window of one coefficient: its steps with model, digest and weight, rising."""

    artifact: "Artifact"
    rows: Sequence[Mapping[str, Any]]
    memoized: bool


def study_window(
    store: "ArtifactStore",
    recipe: Recipe,
    coefficient: "Coefficient",
    asset: str,
    partition: str,
    run: str | None = None,
) -> StudiedWindow:
    """Work out which steps one window takes, publish that, and point `asset` to it.

    Equal windows over equal contents have one digest, so what it is made into is the same too.
    Raises RecipeError where the run lacks steps that it asks for.
    """
    assert recipe.window is not None  # whoever calls this has looked
    alone = replace(recipe, sweep={k: (v,) for k, v in coefficient.values.items()})
    found = with_run_steps(store, alone).window
    assert found is not None
    digests = pulled_steps(store, str(recipe.window.run))
    rows = [
        {"step": step, "model": name, "digest": digests[step], "weight": weight}
        for step, name, weight in found.rows(coefficient.values)
    ]
    identity = [[each["step"], each["digest"], each["weight"]] for each in rows]
    digest = blake3(json.dumps(identity).encode()).hexdigest()
    known = store.find(names.WINDOW, digest)
    artifact = known
    if artifact is None:
        with store.attempt(names.WINDOW) as attempt:
            attempt.write_json(WINDOW_FILE, [{**each, "model": None} for each in rows])
            artifact = attempt.publish(digest, inputs=sorted(each["digest"] for each in rows))
    store.point(asset, partition, names.WINDOW, digest, run=run)
    return StudiedWindow(artifact, rows, known is not None)


def _model(runs: Mapping[str, TrainingRun], called: str, reference: str) -> Any:
    name, step = run_and_step(called)
    return runs[name].model_of(step, reference)

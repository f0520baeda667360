"""`ronghe check`: everything that is wrong with a catalog, before any work and without Dagster.

First what the catalog's files say. Then the models: those that are here by their headers, and with
`sources` also those that are far away. Then each recipe is planned from these headers, for expert
sets that together hold each of its experts once.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_ops.errors import Caution, FaultsError, RongheError, shown
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.starting.chat_check import chat_faults
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from assets.work.upstream.entries import UpstreamModel
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.recipes import Steps
    from orchestration.catalogs import Catalog


MOST_SHOWN = 10
"""Faults of one part that are printed: a model of another shape has one a tensor."""


@dataclass
class Findings:
    """What was found: faults and warnings, each with its part, and what was not looked at."""

    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    cautions: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    notes: list[str] = field(default_factory=list[str])
    planned: int = 0

    def fault(self, part: str, error: Exception) -> None:
        """Note everything that an error tells of a part."""
        told = error.faults if isinstance(error, FaultsError) else (error,)
        self.faults += [(part, str(each)) for each in told]


def run_check(sources: bool, strict: bool, as_json: bool) -> None:
    """Print every fault and warning of the catalog, or all of it as JSON.

    Status 1 where there is a fault, or with `strict` a warning. CatalogError is raised where no
    model can be told from models.yaml.
    """
    from orchestration.catalogs import load_catalog

    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    found = Findings()
    for part in catalog.broken.values():
        found.faults += [(part.id, str(fault)) for fault in part.faults]
    opened = _open_all(catalog, sources, found)
    for name, steps in catalog.files.items():
        _plan(catalog, name, steps, opened, found)
    found.faults += [(f"recipe {name}", told) for name, told in chat_faults(catalog, opened)]
    failed = bool(found.faults) or (strict and bool(found.cautions))
    if as_json:
        print_json(_document(catalog, found, not failed))
    else:
        _print(catalog, found)
    if failed:
        raise SystemExit(1)


def sizes_here(catalog: "Catalog") -> dict[str, int]:
    """Return the bytes of the models that are here, by name; of adapters, nothing."""
    opened = _open_all(catalog, False, Findings())
    whole = (name for name in opened if catalog.models[name].kind == "full")
    return {name: sum(opened[name].files.values()) for name in whole}


def _open_all(catalog: "Catalog", sources: bool, found: Findings) -> "dict[str, Checkpoint]":
    """Open the models by their headers; bases first, because adapters are opened over them."""
    opened: dict[str, Checkpoint] = {}
    order = sorted(catalog.models.values(), key=lambda model: model.base is not None)
    for model in order:
        if model.faults or (model.base is not None and catalog.models[model.base].faults):
            continue
        try:
            checkpoint = _open(catalog.folder, model, sources, opened)
        except RongheError as error:
            found.fault(f"model {model.name}", error)
        except Exception as error:
            from resources.errors import ResourceError

            if not isinstance(error, ResourceError):
                raise
            found.fault(f"model {model.name}", error)
        else:
            if checkpoint is None:
                found.notes.append(f"model {model.name} was not looked at: {model.source}")
            else:
                opened[model.name] = checkpoint
    return opened


def _open(
    folder: Path, model: "UpstreamModel", sources: bool, opened: "Mapping[str, Checkpoint]"
) -> "Checkpoint | None":
    """One model from its headers; None where it is far away and not asked for, or has no base."""
    from merge_ops.checkpoints import open_checkpoint
    from merge_ops.checkpoints.pickles.pickled_weights import is_pickled
    from merge_ops.errors import MissingModelError
    from merge_ops.sources import open_adapter
    from orchestration.commands.models.far_files import FarFiles
    from orchestration.commands.models.readable_models import source_of
    from resources.upstream import FarModel, FolderModel, open_model_source

    upstream = open_model_source(model.source, folder, follow_links=model.follow_links)
    files: Any
    if isinstance(upstream, FolderModel):
        if not upstream.folder.is_dir():
            raise MissingModelError(f"there is no folder {upstream.folder}")
        files = source_of(upstream.folder, model.kind == "lora", model.follow_links)
    elif isinstance(upstream, FarModel) and (copy := upstream.cached()) is not None:
        files = source_of(copy, model.kind == "lora")
    elif isinstance(upstream, FarModel) and sources:
        upstream.revision()
        files = FarFiles(upstream)
        if is_pickled(list(files.sizes())):
            return None  # its headers cannot be read from afar
    else:
        return None
    if model.kind == "lora":
        base = opened.get(str(model.base))
        return open_adapter(model.name, base, files) if base is not None else None
    return open_checkpoint(model.name, files)


def _plan(
    catalog: "Catalog",
    name: str,
    steps: "Steps",
    opened: "Mapping[str, Checkpoint]",
    found: Findings,
) -> None:
    """Plan a recipe for as few of its expert sets as hold every expert that could be opened."""
    from assets.work.scoring.searching import at_start
    from eval_ops.errors import EvalError
    from merge_ops.plans import plan_steps

    base = catalog.base_of(steps.result)
    told: set[Caution] = set()
    opened = dict(opened)
    alone: list[tuple[str, ...]] = [()]  # what takes no experts is planned once
    sets = catalog.sets_of(steps.result)
    asked = covering(sets, opened) if catalog.takes_experts(steps.result) else alone
    for variant, experts in itertools.product(_windows_alone(steps), asked):
        try:
            begun = variant.with_result(at_start(variant.result, experts))
            concrete = _with_run_steps(catalog, begun, opened).for_experts(experts, base)
        except (RongheError, EvalError) as error:
            found.fault(f"recipe {name}", error)
            continue
        if any(each.window and not each.window.found for each in concrete.recipes):
            continue
        if not set(concrete.referenced_models) <= opened.keys():
            continue
        part = f"recipe {name} [{'+'.join(experts)}]" if experts else f"recipe {name}"
        try:
            plans = plan_steps(concrete, opened).plans
        except RongheError as error:
            found.fault(part, error)
            continue
        found.planned += 1
        for caution in [each for plan in plans for each in plan.cautions]:
            if caution not in told:
                told.add(caution)
                found.cautions.append((part, str(caution)))


def _windows_alone(steps: "Steps") -> "Iterator[Steps]":
    """Each window of a sweep by itself, as a catalog makes them; other steps as they are."""
    result = steps.result
    for point in result.coefficients() if result.window is not None else ():
        sweep = {key: (value,) for key, value in point.values.items()}
        yield steps.with_result(dataclasses.replace(result, sweep=sweep))
    if result.window is None:
        yield steps


def _with_run_steps(catalog: "Catalog", steps: "Steps", opened: "dict[str, Checkpoint]") -> "Steps":
    """Windows with those steps of their runs that lie here, which are opened; others as they are.

    Raises RecipeError where a run lacks what a window asks for, and what opening raises.
    """
    from assets.work.upstream.entries import run_and_step
    from assets.work.upstream.training_runs import find_steps
    from merge_ops.recipes import Steps
    from merge_ops.recipes.windows import with_steps

    recipes = list(steps.recipes)
    for place, recipe in enumerate(recipes):
        if recipe.window is None:
            continue
        run = catalog.runs[str(recipe.window.run)]
        found = find_steps({run.name: run}, catalog.folder)
        known = {run_and_step(name)[1]: name for name in found.steps}
        if not known:
            continue
        recipes[place] = with_steps(recipe, known)
        for step in recipes[place].merged_models:
            model = run.model_of(run_and_step(step)[1], found.steps[step])
            checkpoint = _open(catalog.folder, model, False, opened)
            if checkpoint is not None:
                opened[step] = checkpoint
    return Steps(tuple(recipes))


def covering(sets: Iterable[str], opened: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Choose expert sets whose experts are all known, each with one that was in none before it."""
    known, met = set(opened), set[str]()
    for experts in sorted((tuple(each.split("+")) for each in sets), key=lambda each: -len(each)):
        if set(experts) <= known and not set(experts) <= met:
            met |= set(experts)
            yield experts


def _document(catalog: "Catalog", found: Findings, sound: bool) -> dict[str, object]:
    def rows(told: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"part": part, "told": text} for part, text in told]

    return {
        "catalog": str(catalog.folder),
        "sound": sound,
        "models": list(catalog.models),
        "recipes": list(catalog.files),
        "suites": list(catalog.suites),
        "plans": found.planned,
        "faults": rows(found.faults),
        "warnings": rows(found.cautions),
        "not_looked_at": found.notes,
    }


def _by_part(told: list[tuple[str, str]]) -> dict[str, list[str]]:
    by_part: dict[str, list[str]] = {}
    for part, text in told:
        by_part.setdefault(part, []).append(text)
    return by_part


def _print(catalog: "Catalog", found: Findings) -> None:
    console = PlainConsole()
    for part, told in _by_part(found.faults).items():
        for text in told[:MOST_SHOWN]:
            say(console, marked("fault:", "red", shown(f"{part}: {text}", lines=True)))
        if len(told) > MOST_SHOWN:
            more = f"{part}: and {len(told) - MOST_SHOWN} more; --json has all"
            say(console, marked("fault:", "red", more))
    for part, text in found.cautions:
        say(console, marked("warning:", "yellow", f"{part}: {text}"))
    for note in found.notes:
        say(console, f"note: {note}")
    if found.notes:
        say(console, "note: `ronghe check --sources` looks at these over the network")
    counts = (
        f"{len(catalog.models)} models, {len(catalog.files)} recipes, {len(catalog.suites)} suites;"
        f" {found.planned} plans from headers"
    )
    verdict = f"{len(found.faults)} faults" if found.faults else "no fault"
    say(console, f"{catalog.folder}: {counts}: {verdict}, {len(found.cautions)} warnings")

"""The catalog: models.yaml, recipes/*.yaml and suites/*.yaml of one folder, checked as a whole.

    name: my-team                                 # what the catalog is called in its store
    models:
      - name: tiny-base
        source: ../.ronghe/upstream/tiny-base     # relative to the catalog's folder, or a URI
        licence: Apache-2.0
      - name: herbs
        source: hf://owner/name@revision
        base: tiny-base
        kind: full                                # or lora
        store: packed                             # or full; left out: packed if it saves 20 %
        max_size: 20GB                            # more is not downloaded
      - name: mine
        source: /data/mine
        follow_links: true                        # links may lead out of this folder: my own

A recipe's file may hold several documents, of which later ones use the results of named earlier
ones, each an asset of its own (<recipe>/step/<name>):

    name: consensus          # takes the experts of each set, because it says `experts`
    merge_method: ties
    experts: all-pairs
    parameters: {weight: 1.0, density: 0.3}
    ---
    name: anchor             # takes no experts: merged once, from the models that it lists
    merge_method: linear
    models: [{model: tiny-base}, {model: herbs}]
    parameters: {weight: 1.0}
    ---
    merge_method: linear     # the result: for each set, because `consensus` is
    models: [{model: consensus, parameters: {weight: 0.8}}, {model: anchor}]
    parameters: {weight: 0.2}
    suite: quickstart        # suite, gate and sweep are the result's alone

Loading reads no weight and no benchmark item, and needs no network and no environment.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from assets.work.names import reserved_names
from merge_ops.calibration.texts import read_texts
from merge_ops.errors import Fault, MissingModelError, RecipeError, SettingsError
from merge_ops.recipes import Steps, load_steps
from orchestration.catalogs.catalog import BrokenPart, Catalog, CatalogError, SuiteWords
from orchestration.catalogs.imported_files import imported_files
from orchestration.catalogs.listing import list_part
from orchestration.catalogs.models_file import load_models
from orchestration.catalogs.names import RECIPE_NAME, alike, file_name
from orchestration.catalogs.recipe_faults import recipe_faults, suite_fault

SUFFIX = ".yaml"
LIKE_YAML = (".yml", ".yaml")
"""Endings, in any case, of files that were meant to be read. Others are not looked at."""


def load_catalog(folder: Path) -> Catalog:
    """Read and check a catalog's folder. What is broken is in `broken`; the rest is there.

    Raises CatalogError, with every fault, only where no model or run can be told from models.yaml,
    or where a part of the folder cannot be listed.
    """
    file = load_models(folder / "models.yaml")
    if file.unreadable or not (file.models or file.runs):
        faults = [*file.unreadable, *(f for found in file.faults.values() for f in found)]
        raise CatalogError(f"catalog {folder}", faults)
    broken = list(file.broken)
    of_tasks: set[str] = set()
    benchmarks: dict[str, tuple[str, ...]] = {}
    files, by_id = _load_recipes(folder, broken), dict[str, BrokenPart]()
    words = dict[str, SuiteWords]()
    suites, digests = _load_suites(folder, broken, of_tasks, files, benchmarks, words)
    models = dict(sorted(file.models.items()))
    catalog = Catalog(
        folder, models, files, suites, file.declared_name, by_id, digests, of_tasks, benchmarks,
        imported_files(folder, broken), words, dict(sorted(file.runs.items())),
    )  # fmt: skip
    for name, steps in list(files.items()):
        if faults := _recipe_faults(catalog, steps):
            broken.append(BrokenPart("recipe", name, faults))
            del files[name]
    for part in _missing_suites(catalog):
        broken.append(part)
        suites[part.name] = folder / "suites" / f"{part.name}{SUFFIX}"
    by_id.update((part.id, part) for part in sorted(broken, key=lambda part: part.id))
    return catalog


def _recipe_faults(catalog: Catalog, steps: Steps) -> tuple[Fault, ...]:
    try:
        return tuple(recipe_faults(catalog, steps))
    except Exception as error:  # no recipe takes the others down
        problem = f"cannot be checked ({type(error).__name__}: {error})"
        return (Fault(f"recipes/{steps.result.name}{SUFFIX}", problem),)


def _load_suites(
    folder: Path,
    broken: list[BrokenPart],
    of_tasks: set[str],
    recipes: Mapping[str, Steps],
    benchmarks: dict[str, tuple[str, ...]],
    words: dict[str, SuiteWords],
) -> tuple[dict[str, Path], dict[str, str]]:
    """Read the suites: their files by name, and the digests of those that are sound.

    A recipe may name a shipped suite that has no file in the catalog. Suites that name tasks of
    lm-eval, or data to fetch, go into `of_tasks`, names of benchmarks into `benchmarks`, and what
    a suite says of itself into `words`.
    """
    from assets.work.suite_files import items_are_missing, load_suite
    from eval_ops.errors import EvalError, FaultyInputError
    from eval_ops.suites import shipped_suites

    paths = {file_name(path): path for path in _files(folder / "suites", broken, "suite")}
    used = {str(steps.result.suite) for steps in recipes.values()} - set(paths)
    shipped = {name: path for name, path in shipped_suites().items() if name in used}
    digests: dict[str, str] = {}
    for name, path in (paths := paths | shipped).items():
        place, told = f"suites/{path.name}", True
        try:
            suite = load_suite(path)
        except EvalError as error:
            problems = error.faults if isinstance(error, FaultyInputError) else (str(error),)
            told = name in shipped or not items_are_missing(path)
            if name in shipped:
                how = f"write it into suites/{name}.yaml, with `shipped: {name}`, `name: {name}`"
                problems = tuple(f"{problem}; {how}" for problem in problems)
        except ImportError:  # what is not installed is said of the whole command
            raise
        except Exception as error:  # whatever a file makes a library raise, it is this file's fault
            problems = (f"cannot be read ({type(error).__name__}: {error})",)
        else:
            problems = _identity_faults("suite", suite.name, name)
            if not problems:
                digests[name] = suite.digest
                benchmarks[name] = tuple(each.name for each in suite.benchmarks)
                titles = {e.name: e.title for e in suite.benchmarks if e.title != e.name}
                words[name] = SuiteWords(suite.description, titles)
                if suite.waits_for or any(each.task is not None for each in suite.benchmarks):
                    of_tasks.add(name)
        if problems:
            faults = tuple(Fault(place, problem) for problem in problems)
            broken.append(BrokenPart("suite", name, faults, told))
    return paths, digests


def _load_recipes(folder: Path, broken: list[BrokenPart]) -> dict[str, Steps]:
    files: dict[str, Steps] = {}
    for path in _files(folder / "recipes", broken, "recipe"):
        faults: list[Fault] = []
        steps = _load_file(path, faults)
        if steps is not None:
            files[file_name(path)] = steps
        if faults:
            broken.append(BrokenPart("recipe", file_name(path), tuple(faults)))
    return files


def _files(folder: Path, broken: list[BrokenPart], kind: str) -> Iterator[Path]:
    """The files of a kind, sorted. One that has its name twice, or nearly, is broken."""
    there = [path for path in list_part(folder) if path.suffix.lower() in LIKE_YAML]
    taken = alike(file_name(path) for path in there if path.suffix == SUFFIX)
    for path in there:
        place = f"{folder.name}/{path.name}"
        if path.name.startswith("."):  # what an editor or a disk of another system left
            continue
        if path.suffix != SUFFIX:
            beside = " beside it" if path.with_suffix(SUFFIX) in there else ""
            also = f"; {path.stem}{SUFFIX} is there too" if beside else ""
            problem = f"is not read: a {kind}'s file ends in {SUFFIX}{also}. Rename or remove it"
            broken.append(_of_file(kind, path.name, place, problem))
        elif file_name(path) in taken:
            others = taken[file_name(path)]
            problem = f"is nearly called {others}; many disks take them for one, so rename"
            broken.append(_of_file(kind, file_name(path), place, f"{problem} one of the files"))
        else:
            yield path


def _of_file(kind: str, name: str, place: str, problem: str) -> BrokenPart:
    assert kind in ("recipe", "suite")
    return BrokenPart(kind, name, (Fault(place, problem),))


def _identity_faults(kind: str, written: str, name: str) -> tuple[str, ...]:
    """A part of the catalog has one name: its file's."""
    if written == name:
        return ()
    problem = f"has `name: {written}`; a {kind} of the catalog is called as its file ('{name}'):"
    return (f"{problem} write `name: {name}`, or rename the file to {written}{SUFFIX}",)


def _missing_suites(catalog: Catalog) -> list[BrokenPart]:
    """Suites that recipes name and that are not there; the recipes are merged all the same."""
    faults: dict[str, list[Fault]] = {}
    for steps in catalog.files.values():
        fault = suite_fault(catalog, steps)
        if fault is not None:
            faults.setdefault(str(steps.result.suite), []).append(fault)
    return [BrokenPart("suite", name, tuple(found)) for name, found in sorted(faults.items())]


def _load_file(path: Path, faults: list[Fault]) -> Steps | None:
    place, name = f"recipes/{path.name}", file_name(path)
    if not RECIPE_NAME.fullmatch(name):
        rule = "a recipe's file name may hold letters, digits and '_' (it names assets)"
        faults.append(Fault(place, rule))
        return None
    if name in reserved_names():
        taken = f"is called '{name}', which begins the names of other assets; rename the file"
        faults.append(Fault(place, f"{taken} (not allowed: {', '.join(sorted(reserved_names()))})"))
        return None
    try:
        steps = load_steps(path).with_texts(lambda file: read_texts(path.parent.parent / file))
    except (RecipeError, SettingsError) as error:
        faults.extend(
            dataclasses.replace(fault, where=f"{place}: {fault.where}" if fault.where else place)
            for fault in error.faults
        )
        return None
    except MissingModelError as error:  # its calibration texts
        faults.append(Fault(place, str(error)))
        return None
    except Exception as error:  # no file takes the others down, whatever it makes a library raise
        faults.append(Fault(place, f"cannot be read ({type(error).__name__}: {error})"))
        return None
    if steps.result.name != name:
        problem = f"is '{steps.result.name}'; what a file of the catalog is for has the file's"
        faults.append(Fault(f"{place}: name", f"{problem} name ('{name}'), or none"))
        return None
    return steps

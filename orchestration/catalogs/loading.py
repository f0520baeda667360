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
from pathlib import Path

from assets.work.names import reserved_names
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes import Steps, load_steps
from orchestration.catalogs.catalog import Catalog, CatalogError
from orchestration.catalogs.models_file import load_models
from orchestration.catalogs.names import RECIPE_NAME
from orchestration.catalogs.recipe_faults import recipe_faults


def load_catalog(folder: Path) -> Catalog:
    """Read and check a catalog's folder. Raises CatalogError with every fault of every file."""
    faults: list[Fault] = []
    said: dict[str, str] = {}
    models = load_models(folder / "models.yaml", faults, said)
    suites = {path.stem: path for path in sorted((folder / "suites").glob("*.yaml"))}
    files: dict[str, Steps] = {}
    for path in sorted((folder / "recipes").glob("*.yaml")):
        steps = _load_file(path, faults)
        if steps is not None:
            files[path.stem] = steps
    catalog = Catalog(folder, dict(sorted(models.items())), files, suites, said.get("name"))
    if models:
        for steps in files.values():
            faults.extend(recipe_faults(catalog, steps))
    if faults:
        raise CatalogError(f"catalog {folder}", faults)
    return catalog


def _load_file(path: Path, faults: list[Fault]) -> Steps | None:
    place = f"recipes/{path.name}"
    if not RECIPE_NAME.fullmatch(path.stem):
        rule = "a recipe's file name may hold letters, digits and '_' (it names assets)"
        faults.append(Fault(place, rule))
        return None
    if path.stem in reserved_names():
        taken = f"is called '{path.stem}', which begins the names of other assets; rename the file"
        faults.append(Fault(place, f"{taken} (not allowed: {', '.join(sorted(reserved_names()))})"))
        return None
    try:
        steps = load_steps(path)
    except RecipeError as error:
        faults.extend(
            dataclasses.replace(fault, where=f"{place}: {fault.where}" if fault.where else place)
            for fault in error.faults
        )
        return None
    if steps.result.name != path.stem:
        problem = f"is '{steps.result.name}'; what a file of the catalog is for has the file's"
        faults.append(Fault(f"{place}: name", f"{problem} name ('{path.stem}'), or none"))
        return None
    return steps

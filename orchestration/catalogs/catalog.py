"""The catalog: models.yaml, recipes/*.yaml and suites/*.yaml of one folder, checked as a whole.

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
ones, each an asset of its own (merged_stage/<recipe>/<name>):

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
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.work.entries import UpstreamModel
from merge_ops.checkpoints.bounded_yaml import DocumentError, read_documents
from merge_ops.errors import Fault, FaultsError, RecipeError, did_you_mean
from merge_ops.recipes.recipe import Recipe, set_id
from merge_ops.recipes.stages import Stages, load_stages
from orchestration.catalogs.names import BANNED, RECIPE_NAME, name_rule
from orchestration.catalogs.recipe_faults import recipe_faults


class CatalogError(FaultsError):
    """A catalog with faults, all of them listed, each with its file."""


class ModelDefinition(BaseModel):
    """One entry of models.yaml as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=120)
    source: str = Field(min_length=1)
    base: str | None = None
    kind: Literal["full", "lora"] = "full"
    licence: str | None = None
    description: str | None = None
    store: Literal["full", "packed"] | None = None


@dataclass(frozen=True)
class Catalog:
    """A checked catalog. `models` and `files` are in the order of their names.

    `files` are the recipes' files: each one recipe, or several of which later ones use earlier
    ones' results (merge_ops.plans.stages says which of them are merged for each expert set).
    """

    folder: Path
    models: Mapping[str, UpstreamModel]
    files: Mapping[str, Stages]
    suites: Mapping[str, Path]

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """What each file is for: its only recipe, or its last."""
        return {name: stages.result for name, stages in self.files.items()}

    @property
    def bases(self) -> tuple[str, ...]:
        """Names of the models that have experts, sorted."""
        return tuple(sorted({model.base for model in self.models.values() if model.base}))

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the models that have a base."""
        return tuple(name for name, model in self.models.items() if model.base)

    def experts_of(self, base: str) -> tuple[str, ...]:
        """Names of the experts of one base model."""
        return tuple(name for name, model in self.models.items() if model.base == base)

    def base_of(self, recipe: Recipe) -> str:
        """The base model whose experts a file merges; of its recipes, give the result.

        It is the one that any of them names, itself or by an expert, or the catalog's only one.
        """
        stages = self.files[recipe.name]
        names = [*(each.base_model for each in stages.recipes), *stages.referenced_models]
        named = [self.models[name].base or name for name in names if name and name in self.models]
        return named[0] if named else self.bases[0]

    def sets_of(self, recipe: Recipe) -> tuple[str, ...]:
        """Ids of the expert sets that a file is merged for, sorted."""
        takers = [each for each in self.files[recipe.name].recipes if each.experts]
        return self.sets_asked(takers[0], self.base_of(recipe)) if takers else ()

    def sets_asked(self, document: Recipe, base: str) -> tuple[str, ...]:
        """Ids of the expert sets that one document asks for, sorted."""
        return tuple(sorted(map(set_id, document.expert_sets(self.experts_of(base)))))

    @property
    def sets(self) -> tuple[str, ...]:
        """Ids of all expert sets of all recipes, sorted."""
        sets = {each for recipe in self.recipes.values() for each in self.sets_of(recipe)}
        return tuple(sorted(sets))

    def suite_of(self, recipe: Recipe) -> Path | None:
        """The suite file that a recipe is scored on."""
        return self.suites[recipe.suite] if recipe.suite else None


def load_catalog(folder: Path) -> Catalog:
    """Read and check a catalog's folder. Raises CatalogError with every fault of every file."""
    faults: list[Fault] = []
    models = _load_models(folder / "models.yaml", faults)
    suites = {path.stem: path for path in sorted((folder / "suites").glob("*.yaml"))}
    files: dict[str, Stages] = {}
    for path in sorted((folder / "recipes").glob("*.yaml")):
        stages = _load_file(path, faults)
        if stages is not None:
            files[path.stem] = stages
    catalog = Catalog(folder, dict(sorted(models.items())), files, suites)
    if models:
        for stages in files.values():
            faults.extend(recipe_faults(catalog, stages))
    if faults:
        raise CatalogError(f"catalog {folder}", faults)
    return catalog


def _load_models(path: Path, faults: list[Fault]) -> dict[str, UpstreamModel]:
    entries = _model_entries(path, faults)
    models: dict[str, UpstreamModel] = {}
    for position, entry in enumerate(entries):
        where = f"models.yaml: models[{position}]"
        try:
            definition = ModelDefinition.model_validate(entry)
        except ValidationError as error:
            faults.extend(_spell(where, error))
            continue
        if BANNED.search(definition.name):
            faults.append(Fault(f"{where}.name", f"is {definition.name!r}; {name_rule()}"))
        models[definition.name] = UpstreamModel(**definition.model_dump())
    faults.extend(_store_faults(models))
    names = Counter(entry.get("name") for entry in entries if isinstance(entry, dict))
    for name, count in names.items():
        if count > 1:
            faults.append(Fault("models.yaml", f"names '{name}' {count} times; names are unique"))
    faults.extend(_base_faults(models))
    return models


def _model_entries(path: Path, faults: list[Fault]) -> list[Any]:
    try:
        documents = read_documents(path)
    except FileNotFoundError:
        problem = "does not exist; list the upstream models in it (RONGHE_CATALOG names the folder)"
        faults.append(Fault("models.yaml", problem))
        return []
    except DocumentError as error:
        for fault in error.faults:
            where = f"models.yaml: {fault.where}" if fault.where else "models.yaml"
            faults.append(Fault(where, " ".join(fault.problem.split())))
        return []
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, dict) or not isinstance(document.get("models"), list):
        faults.append(Fault("models.yaml", "must hold `models:`, a list of {name, source, base}"))
        return []
    for key in document:
        if key != "models":
            hint = did_you_mean(str(key), ["models"])
            faults.append(Fault(f"models.yaml: {key}", f"is no known key.{hint} Known: models"))
    if not document["models"]:
        faults.append(Fault("models.yaml", "lists no model"))
    return document["models"]


def _spell(where: str, error: ValidationError) -> Iterator[Fault]:
    """pydantic's faults as sentences; an unknown key gets a did-you-mean."""
    known = list(ModelDefinition.model_fields)
    for fault in error.errors(include_url=False):
        place = ".".join([where, *(str(part) for part in fault["loc"])])
        if fault["type"] == "extra_forbidden":
            hint = did_you_mean(str(fault["loc"][-1]), known)
            yield Fault(place, f"is no key of a model.{hint} Known: {', '.join(known)}")
        elif fault["type"] == "missing":
            yield Fault(place, "is missing")
        else:
            allowed = fault["msg"].replace("Input should", "it must", 1)
            yield Fault(place, f"is {fault['input']!r}; {allowed}")


def _base_faults(models: Mapping[str, UpstreamModel]) -> Iterator[Fault]:
    for name, model in models.items():
        where = f"models.yaml: model '{name}': base"
        if model.base is not None and model.base not in models:
            hint = did_you_mean(model.base, [each for each in models if each != name])
            yield Fault(where, f"is '{model.base}', which is no model of the catalog.{hint}")
        elif model.base is not None and models[model.base].base is not None:
            yield Fault(where, f"is '{model.base}', which is an expert itself; name its base model")
        elif model.base is None and model.kind == "lora":
            yield Fault(where, "is missing; a LoRA adapter belongs to a base model")


def _store_faults(models: Mapping[str, UpstreamModel]) -> Iterator[Fault]:
    for name, model in models.items():
        where = f"models.yaml: model '{name}': store"
        if model.store == "packed" and model.base is None:
            yield Fault(where, "is 'packed'; only an expert, which names its `base`, can be packed")
        elif model.store is not None and model.kind == "lora":
            yield Fault(where, f"is '{model.store}'; an adapter stays an adapter, so leave it out")


def _load_file(path: Path, faults: list[Fault]) -> Stages | None:
    place = f"recipes/{path.name}"
    if not RECIPE_NAME.fullmatch(path.stem):
        rule = "a recipe's file name may hold letters, digits and '_' (it names assets)"
        faults.append(Fault(place, rule))
        return None
    try:
        stages = load_stages(path)
    except RecipeError as error:
        faults.extend(
            dataclasses.replace(fault, where=f"{place}: {fault.where}" if fault.where else place)
            for fault in error.faults
        )
        return None
    if stages.result.name != path.stem:
        problem = f"is '{stages.result.name}'; what a file of the catalog is for has the file's"
        faults.append(Fault(f"{place}: name", f"{problem} name ('{path.stem}'), or none"))
        return None
    return stages

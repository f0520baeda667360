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

Loading reads no weight and no benchmark item, and needs no network and no environment.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.entries import UpstreamModel
from merge_ops.errors import Fault, FaultsError, RecipeError, did_you_mean
from merge_ops.recipe import ALL, ALL_PAIRS, Recipe, load_recipe, set_id

RECIPE_NAME = re.compile(r"[A-Za-z0-9_]+")
BANNED = re.compile(r"[|\[\],+\s\x00-\x1f\x7f]|\.\.\.")


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
    """A checked catalog. `models` and `recipes` are in the order of their names."""

    folder: Path
    models: Mapping[str, UpstreamModel]
    recipes: Mapping[str, Recipe]
    suites: Mapping[str, Path]

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the models that have a base."""
        return tuple(name for name, model in self.models.items() if model.base)

    def experts_of(self, base: str) -> tuple[str, ...]:
        """Names of the experts of one base model."""
        return tuple(name for name, model in self.models.items() if model.base == base)

    def base_of(self, recipe: Recipe) -> str:
        """The base model whose experts a recipe merges."""
        bases = sorted({model.base for model in self.models.values() if model.base})
        return recipe.base_model or bases[0]

    def sets_of(self, recipe: Recipe) -> tuple[str, ...]:
        """Ids of the expert sets that a recipe merges, sorted."""
        sets = recipe.expert_sets(self.experts_of(self.base_of(recipe)))
        return tuple(sorted(set_id(names) for names in sets))

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
    recipes: dict[str, Recipe] = {}
    for path in sorted((folder / "recipes").glob("*.yaml")):
        recipe = _load_recipe(path, faults)
        if recipe is not None:
            recipes[recipe.name] = recipe
    catalog = Catalog(folder, dict(sorted(models.items())), recipes, suites)
    if models:
        for recipe in recipes.values():
            faults.extend(_recipe_faults(catalog, recipe))
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
            faults.append(Fault(f"{where}.name", f"is {definition.name!r}; {_name_rule()}"))
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
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "does not exist; list the upstream models in it (RONGHE_CATALOG names the folder)"
        faults.append(Fault("models.yaml", problem))
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        faults.append(Fault("models.yaml", f"cannot be read: {' '.join(str(error).split())}"))
        return []
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


def _load_recipe(path: Path, faults: list[Fault]) -> Recipe | None:
    place = f"recipes/{path.name}"
    if not RECIPE_NAME.fullmatch(path.stem):
        rule = "a recipe's file name may hold letters, digits and '_' (it names assets)"
        faults.append(Fault(place, rule))
        return None
    try:
        return load_recipe(path)
    except RecipeError as error:
        faults.extend(
            dataclasses.replace(fault, where=f"{place}: {fault.where}" if fault.where else place)
            for fault in error.faults
        )
        return None


def _recipe_faults(catalog: Catalog, recipe: Recipe) -> Iterator[Fault]:
    """What is wrong between a recipe and the rest of the catalog."""
    place = f"recipes/{recipe.name}.yaml"
    if not recipe.experts:
        yield Fault(f"{place}: experts", f"is missing; allowed: {ALL_PAIRS}, {ALL}, lists of names")
    yield from _name_faults(catalog, recipe, place)
    if recipe.suite is not None and recipe.suite not in catalog.suites:
        hint = did_you_mean(recipe.suite, catalog.suites)
        known = ", ".join(catalog.suites) or "none"
        yield Fault(f"{place}: suite", f"is '{recipe.suite}', not in suites/.{hint} Known: {known}")
    for coefficient in recipe.coefficients():
        if BANNED.search(coefficient.id.replace("+", "")):
            problem = f"gives the coefficient {coefficient.id!r}; {_name_rule()}"
            yield Fault(f"{place}: sweep", problem)
    yield from _gate_faults(recipe, place)


def _name_faults(catalog: Catalog, recipe: Recipe, place: str) -> Iterator[Fault]:
    bases = sorted({model.base for model in catalog.models.values() if model.base})
    if recipe.base_model is None and len(bases) != 1:
        known = ", ".join(bases) or "none"
        yield Fault(f"{place}: base_model", f"is missing; the catalog's base models: {known}")
        return
    base = catalog.base_of(recipe)
    if base not in bases:
        hint = did_you_mean(base, bases)
        problem = f"is '{base}', which is the base of no expert.{hint} Known: {', '.join(bases)}"
        yield Fault(f"{place}: base_model", problem)
        return
    experts = catalog.experts_of(base)
    named = [name for entry in recipe.experts if not isinstance(entry, str) for name in entry]
    for name in dict.fromkeys(named):
        if name not in experts:
            hint = did_you_mean(name, experts)
            problem = f"names '{name}', which is no expert of '{base}'.{hint}"
            yield Fault(f"{place}: experts", f"{problem} Known: {', '.join(experts)}")
    for position, entry in enumerate(recipe.models):
        if entry.model not in (base, *experts):
            hint = did_you_mean(entry.model, (base, *experts))
            problem = f"is '{entry.model}', which is neither '{base}' nor an expert of it.{hint}"
            yield Fault(f"{place}: models[{position}].model", problem)
    for name in recipe.tokenizer.model_names if recipe.tokenizer else ():
        if name not in (base, *experts):
            hint = did_you_mean(name, (base, *experts))
            problem = f"names '{name}', which is neither '{base}' nor an expert of it.{hint}"
            yield Fault(f"{place}: tokenizer", problem)
    if recipe.experts and not catalog.sets_of(recipe):
        problem = f"gives no expert set that {recipe.merge_method} can merge"
        yield Fault(f"{place}: experts", problem)


def _gate_faults(recipe: Recipe, place: str) -> Iterator[Fault]:
    from eval_ops.errors import GateError
    from eval_ops.gates import parse_gate

    try:
        parse_gate(recipe.gate)
    except GateError as error:
        for fault in error.faults:
            yield Fault(f"{place}: gate", fault)


def _name_rule() -> str:
    return "Dagster's partition keys allow no '|', '[', ']', ',', '+', blanks or '...'"

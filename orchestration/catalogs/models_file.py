"""models.yaml: the upstream models of a catalog, with every fault at once."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.work.entries import UpstreamModel
from merge_ops.checkpoints import DocumentError, read_documents
from merge_ops.errors import Fault, did_you_mean
from orchestration.catalogs.catalog import CatalogError
from orchestration.catalogs.names import BANNED, name_rule
from orchestration.settings import catalog_name_fault

KEYS = ("name", "models")


class ModelDefinition(BaseModel):
    """A model definition is one entry of models.yaml as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=120)
    source: str = Field(min_length=1)
    base: str | None = None
    kind: Literal["full", "lora"] = "full"
    licence: str | None = None
    description: str | None = None
    store: Literal["full", "packed"] | None = None


def declared_name(folder: Path) -> str | None:
    """Read what a catalog's models.yaml calls the catalog; None where it says nothing or is absent.

    Raises CatalogError where the file cannot be read or the name is not allowed: another name
    would lead to other refs.
    """
    path, faults = folder / "models.yaml", list[Fault]()
    document = _document(path, faults) if path.exists() else {}
    if faults:
        raise CatalogError(f"catalog {folder}", faults)
    name = document.get("name")
    faults.extend(_name_faults(document))
    if faults:
        raise CatalogError(f"catalog {folder}", faults)
    return name


def load_models(
    path: Path, faults: list[Fault], said: dict[str, str] | None = None
) -> dict[str, UpstreamModel]:
    """Read the models of a catalog by name, in the file's order; faults go into `faults`.

    What the file calls the catalog goes into `said`, as `name`.
    """
    document = _document(path, faults)
    faults.extend(_name_faults(document))
    if said is not None and isinstance(document.get("name"), str):
        said["name"] = document["name"]
    entries: list[Any] = document.get("models") or []
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


def _document(path: Path, faults: list[Fault]) -> dict[str, Any]:
    """The file's mapping, which holds a list `models`; an empty one where there are faults."""
    try:
        documents = read_documents(path)
    except FileNotFoundError:
        problem = "does not exist; list the upstream models in it (RONGHE_CATALOG names the folder)"
        faults.append(Fault("models.yaml", problem))
        return {}
    except DocumentError as error:
        for fault in error.faults:
            where = f"models.yaml: {fault.where}" if fault.where else "models.yaml"
            faults.append(Fault(where, " ".join(fault.problem.split())))
        return {}
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, dict) or not isinstance(document.get("models"), list):
        faults.append(Fault("models.yaml", "must hold `models:`, a list of {name, source, base}"))
        return {}
    for key in document:
        if key not in KEYS:
            hint = did_you_mean(str(key), list(KEYS))
            known = ", ".join(KEYS)
            faults.append(Fault(f"models.yaml: {key}", f"is no known key.{hint} Known: {known}"))
    if not document["models"]:
        faults.append(Fault("models.yaml", "lists no model"))
    return document


def _name_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    problem = catalog_name_fault(document["name"]) if "name" in document else None
    if problem:
        yield Fault("models.yaml: name", f"{problem} (the catalog's name in its store)")


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

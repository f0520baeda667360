"""models.yaml: the upstream models of a catalog, with every fault at once.

An entry with faults is a broken model. Where it can be told what it is called it stays a model of
the catalog, with its faults: the expert sets that hold it are what they were, and none of them is
merged as a smaller one.
"""

import dataclasses
import difflib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.work.upstream.entries import TrainingRun, UpstreamModel
from merge_ops.checkpoints.files.bounded_yaml import DocumentError, read_documents
from merge_ops.errors import Fault, did_you_mean, quoted
from orchestration.catalogs.catalog import BrokenPart, CatalogError
from orchestration.catalogs.names import BANNED, alike, name_rule, secret_fault
from orchestration.catalogs.runs_section import read_runs
from orchestration.options import OptionError, size
from orchestration.settings import catalog_name_fault

KEYS = ("name", "models", "runs")

MAX_FAULTS = 50
"""Faults of one entry that are told."""


class ModelDefinition(BaseModel):
    """A model definition is one entry of models.yaml as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=120)
    source: str = Field(min_length=1)
    base: str | None = None
    kind: Literal["full", "lora"] = "full"
    licence: str | None = None
    title: str | None = None
    description: str | None = None
    store: Literal["full", "packed"] | None = None
    follow_links: bool = False
    max_size: int | str | None = None


def declared_name(folder: Path) -> str | None:
    """Read what a catalog's models.yaml calls the catalog; None where it says nothing or is absent.

    Raises CatalogError where the folder is none, the file cannot be read or the name is not
    allowed: another name would lead to other refs.
    """
    path, faults = folder / "models.yaml", list[Fault]()
    if os.path.lexists(folder) and not folder.is_dir():
        problem = "is no folder, or a link to none; it names the folder that models.yaml is in"
        raise CatalogError(f"catalog {folder}", [Fault("RONGHE_CATALOG", problem)])
    document = _document(path, faults) if os.path.lexists(path) else {}
    if faults:
        raise CatalogError(f"catalog {folder}", faults)
    name = document.get("name")
    faults.extend(_name_faults(document))
    if faults:
        raise CatalogError(f"catalog {folder}", faults)
    return name


@dataclass
class ModelsFile:
    """A models file holds the models by name, in the file's order, and what is wrong.

    `unreadable` are faults that leave nothing of the file. `faults` go by model, or by the place of
    an entry that has no name. `declared_name` is what the file calls the catalog, if it does.
    """

    declared_name: str | None = None
    runs: dict[str, TrainingRun] = field(default_factory=dict[str, TrainingRun])
    broken_runs: list[BrokenPart] = field(default_factory=list[BrokenPart])
    models: dict[str, UpstreamModel] = field(default_factory=dict[str, UpstreamModel])
    unreadable: list[Fault] = field(default_factory=list[Fault])
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))

    @property
    def broken(self) -> Iterator[BrokenPart]:
        """The parts with faults."""
        for name, faults in self.faults.items():
            kind = "model" if name in self.models else "file"
            yield BrokenPart(kind, name, tuple(faults))
        yield from self.broken_runs


def load_models(path: Path) -> ModelsFile:
    """Read the models of a catalog, and every fault of each."""
    file = ModelsFile()
    document = _document(path, file.unreadable)
    file.unreadable.extend(_name_faults(document))
    if isinstance(document.get("name"), str):
        file.declared_name = document["name"]
    entries: list[Any] = document.get("models") or []
    places: dict[str, list[str]] = defaultdict(list)
    for position, entry in enumerate(entries):
        where = f"models.yaml: models[{position}]"
        name = _name_of(entry)
        found = list(_entry_faults(where, entry))
        if name is None:
            file.faults[f"models[{position}]"] += found
            continue
        places[name].append(where)
        if found:
            file.faults[name] += found
        file.models[name] = _model_of(entry, name)
    for name, found in places.items():
        if len(found) > 1:
            problem = f"names '{name}' {len(found)} times; names are unique"
            file.faults[name].append(Fault("models.yaml", problem))
    for name, others in alike(file.models).items():
        problem = f"is nearly the name of {others}; many disks take them for one, so rename one"
        file.faults[name].append(Fault(f"models.yaml: model '{name}': name", problem))
    for name, fault in (*_base_faults(file.models, file.faults), *_store_faults(file.models)):
        file.faults[name].append(fault)
    for name, faults in file.faults.items():
        if name in file.models:
            base = _likely_base(file.models, name)
            broken = tuple(map(str, faults))
            file.models[name] = dataclasses.replace(file.models[name], base=base, faults=broken)
    section = read_runs(document, file.models)
    file.runs, file.broken_runs = section.runs, section.broken
    return file


def _document(path: Path, faults: list[Fault]) -> dict[str, Any]:
    """The file's mapping, with a list `models`, or `runs`; an empty one where there are faults."""
    try:
        documents = read_documents(path)
    except FileNotFoundError:
        problem = "does not exist; list the upstream models in it (RONGHE_CATALOG names the folder)"
        faults.append(Fault("models.yaml", problem))
        return {}
    except DocumentError as error:
        for fault in error.faults:
            where = f"models.yaml: {fault.where}" if fault.where else "models.yaml"
            problem = " ".join(fault.problem.split()).removeprefix("the file ")
            faults.append(Fault(where, problem))
        return {}
    document = documents[0] if len(documents) == 1 else None
    runs = isinstance(document, dict) and bool(document.get("runs"))
    listed = isinstance(document, dict) and isinstance(document.get("models"), list)
    if not isinstance(document, dict) or not (listed or (runs and "models" not in document)):
        problem = "must hold `models:`, a list of {name, source, base}, or `runs:`, or both"
        faults.append(Fault("models.yaml", problem))
        return {}
    for key in document:
        if key not in KEYS:
            hint = did_you_mean(str(key), list(KEYS))
            known = ", ".join(KEYS)
            faults.append(Fault(f"models.yaml: {key}", f"is no known key.{hint} Known: {known}"))
    if not document.get("models") and not runs:
        faults.append(Fault("models.yaml", "lists no model"))
    return document


def _name_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    problem = catalog_name_fault(document["name"]) if "name" in document else None
    if problem:
        yield Fault("models.yaml: name", f"{problem} (the catalog's name in its store)")


def _name_of(entry: object) -> str | None:
    """What an entry calls its model; None where that can be no partition."""
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= 120 or BANNED.search(name):
        return None
    return name


def _entry_faults(where: str, entry: object) -> Iterator[Fault]:
    """What is wrong with one entry by itself."""
    written = entry if isinstance(entry, dict) else {}
    try:
        ModelDefinition.model_validate(entry)
    except ValidationError as error:
        yield from _spell(where, error)
    given, source = written.get("name"), written.get("source")
    if isinstance(given, str) and BANNED.search(given):
        yield Fault(f"{where}.name", f"is {quoted(given)}; {name_rule()}")
    if written.get("follow_links") is True and isinstance(source, str) and not _is_local(source):
        yield Fault(f"{where}.follow_links", "is for a folder of one's own, and this is none")
    if written.get("max_size") is not None and isinstance(size_of(written["max_size"]), str):
        yield Fault(f"{where}.max_size", str(size_of(written["max_size"])))
    if isinstance(source, str) and (problem := secret_fault(source)):
        yield Fault(f"{where}.source", problem)


def size_of(written: object) -> int | str:
    """The bytes that `20GB` or a number stands for, or why it stands for none."""
    try:
        return size(str(written))
    except OptionError as error:
        return f"is {quoted(written)}; it must be {error}"


def _is_local(source: str) -> bool:
    """Whether a source is a folder here."""
    scheme, separator, _ = source.partition("://")
    return not separator or scheme == "file"


def _model_of(entry: Mapping[str, Any], name: str) -> UpstreamModel:
    """An entry as far as it can be understood."""
    try:
        fields = ModelDefinition.model_validate(entry).model_dump()
        most = size_of(fields["max_size"]) if fields["max_size"] is not None else None
        return UpstreamModel(**{**fields, "max_size": most if isinstance(most, int) else None})
    except ValidationError:
        source, base = entry.get("source"), entry.get("base")
        lora: Literal["lora", "full"] = "lora" if entry.get("kind") == "lora" else "full"
        return UpstreamModel(
            name,
            source if isinstance(source, str) else "",
            base if isinstance(base, str) else None,
            lora,
        )


def _likely_base(models: Mapping[str, UpstreamModel], name: str) -> str | None:
    """The base model of a broken entry as far as can be told. Nothing is ever merged by it.

    It says which expert sets the model is in, so that those stay what they are.
    """
    given = models[name].base
    if given is None and models[name].kind == "full":
        return None
    if given is not None and given in models:
        return models[given].base or given
    bases = sorted(each for each, model in models.items() if model.base is None and each != name)
    near = difflib.get_close_matches(given or "", bases, n=1)
    if near:
        return near[0]
    named = [model.base for model in models.values() if model.base in models]
    return max(named, key=named.count) if named else None


def _spell(where: str, error: ValidationError) -> Iterator[Fault]:
    """pydantic's faults as sentences; an unknown key gets a did-you-mean."""
    known = list(ModelDefinition.model_fields)
    for fault in error.errors(include_url=False)[:MAX_FAULTS]:
        place = ".".join([where, *(str(part) for part in fault["loc"])])
        if fault["type"] == "extra_forbidden":
            hint = did_you_mean(str(fault["loc"][-1]), known)
            yield Fault(place, f"is no key of a model.{hint} Known: {', '.join(known)}")
        elif fault["type"] == "missing":
            yield Fault(place, "is missing")
        else:
            allowed = fault["msg"].replace("Input should", "it must", 1)
            yield Fault(place, f"is {quoted(fault['input'])}; {allowed}")


def _base_faults(
    models: Mapping[str, UpstreamModel], broken: Iterable[str]
) -> Iterator[tuple[str, Fault]]:
    """What is wrong between models, by name. An expert of a broken base has no fault of its own."""
    known = set(broken)
    for name, model in models.items():
        where = f"models.yaml: model '{name}': base"
        if model.base is not None and model.base not in models:
            hint = did_you_mean(model.base, [each for each in models if each != name])
            problem = f"is '{model.base}', which is no model of the catalog.{hint}"
            yield name, Fault(where, problem)
        elif model.base is not None and models[model.base].base is not None:
            problem = f"is '{model.base}', which is an expert itself; name its base model"
            yield name, Fault(where, problem)
        elif model.base is None and model.kind == "lora" and name not in known:
            yield name, Fault(where, "is missing; a LoRA adapter belongs to a base model")


def _store_faults(models: Mapping[str, UpstreamModel]) -> Iterator[tuple[str, Fault]]:
    for name, model in models.items():
        where = f"models.yaml: model '{name}': store"
        if model.store == "packed" and model.base is None:
            problem = "is 'packed'; only an expert, which names its `base`, can be packed"
            yield name, Fault(where, problem)
        elif model.store is not None and model.kind == "lora":
            problem = f"is '{model.store}'; an adapter stays an adapter, so leave it out"
            yield name, Fault(where, problem)

"""Models of a mergekit file; `base+adapter` is a base with a LoRA adapter on it."""

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

from merge_ops.checkpoints import (
    ByteSource,
    Checkpoint,
    open_checkpoint,
)
from merge_ops.checkpoints.pickles.pickled_weights import PickledFiles, is_pickled
from merge_ops.errors import (
    CheckpointError,
    CompatibilityError,
    Fault,
    FaultsError,
    MissingModelError,
)
from orchestration.commands.models.far_files import FarFiles, fetch
from orchestration.commands.models.model_references import Place, is_there, local_path, resolve
from orchestration.commands.models.readable_models import folder_of_adapter, source_of
from orchestration.sizes import size_text

MAX_ADAPTERS = 100
"""Adapters on one base model."""


class Download(Enum):
    """When models that are far away are downloaded: before a plan, after it, or never."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"


def folders_of(reference: str) -> list[str]:
    """The folders behind a reference: itself, or a base and the adapters on it, in order.

    A folder whose own name holds `+` is that folder. Adapters are split off from the end, so that
    `base+one+two` is adapter two on what adapter one makes of the base.
    """
    adapters: list[str] = []
    while not is_there(local_path(reference)):
        base, plus, adapter = reference.rpartition("+")
        if not plus or not base or not adapter:
            break
        adapters.append(adapter)
        reference = base
        if len(adapters) > MAX_ADAPTERS:
            raise CheckpointError(
                f"model '{reference[:100]}…' has more than {MAX_ADAPTERS} adapters on it; merge"
                " some of them into a model first"
            )
    return [reference, *reversed(adapters)]


def open_models(
    subject: str,
    references: Sequence[str],
    digests: Mapping[str, str] | None = None,
    download: Download = Download.NOW,
    follow_links: bool = False,
) -> dict[str, Checkpoint]:
    """Open models by reference: folders, .safetensors files, names of the Hub, `base+adapter`.

    `digests` gives those of the folders, where known. Weights without a config are merged by the
    names of their tensors. All missing models are reported at once, and so is everything wrong with
    adapters. Of a model that is downloaded `LATER` (by `fetch_models`) or `NEVER` the headers are
    read over the network. With `follow_links` links may lead out of the folders.
    """
    places = find_places(subject, references, follow_links)
    opened: dict[str, Checkpoint] = {}
    faults: list[Fault] = []
    for reference in references:
        try:
            opened[reference] = _open_model(reference, places, digests or {}, download)
        except FaultsError as error:
            faults += [
                Fault(f"model '{reference}': {each.where}", each.problem) for each in error.faults
            ]
    if faults:
        raise CompatibilityError(subject, faults)
    return opened


def find_places(
    subject: str, references: Sequence[str], follow_links: bool = False
) -> dict[str, Place]:
    """Find the place of every model of the references, each part of a `base+adapter` for itself.

    Raises MissingModelError for all that are nowhere.
    """
    places: dict[str, Place] = {}
    missing: list[str] = []
    for folder in dict.fromkeys(part for each in references for part in folders_of(each)):
        try:
            places[folder] = dataclasses.replace(resolve(folder), follow_links=follow_links)
        except MissingModelError as error:
            missing.append(f"'{folder}': {error}")
    if missing:
        raise MissingModelError(f"{subject}: model " + "; model ".join(missing))
    return places


def _open_model(
    reference: str, places: Mapping[str, Place], digests: Mapping[str, str], download: Download
) -> Checkpoint:
    """Open one model: a folder, or a base with adapters on it."""
    folder, *adapters = folders_of(reference)
    name, place = folder, places[folder]
    model = open_checkpoint(name, files_of(name, place, download), digests.get(folder))
    cautions = (*model.cautions, *place.cautions)
    model = dataclasses.replace(model, origin=place.origin, cautions=cautions)
    for adapter in adapters:
        from merge_ops.sources import open_adapter

        name, place = f"{name}+{adapter}", places[adapter]
        files = files_of(adapter, place, download, adapter=True)
        both = open_adapter(name, model, files, digests.get(adapter))
        change = dataclasses.replace(both.made_of[1], origin=place.origin)
        cautions = (*both.cautions, *place.cautions)
        model = dataclasses.replace(
            both, origin=None, made_of=(both.made_of[0], change), cautions=cautions
        )
    return model


def files_of(reference: str, place: Place, download: Download, adapter: bool = False) -> ByteSource:
    """Return the files of a model, read over the network where it may not be downloaded yet."""
    if place.path is None and place.far is not None and download is not Download.NOW:
        files = FarFiles(place.far)
        if not is_pickled(list(files.sizes())):
            return files
        if download is Download.NEVER:
            raise CheckpointError(
                f"model '{reference}': its weights ({files.location}) are pickled, whose headers"
                f" cannot be read from afar; `ronghe merge` downloads them"
                f" ({size_text(sum(files.sizes().values()))}), or do it first and plan then"
            )
    path = path_of(place)
    source = source_of(folder_of_adapter(path) if adapter else path, adapter, place.follow_links)
    if isinstance(source, PickledFiles) and download is Download.NOW:
        source.fetch()
    return source


def path_of(place: Place) -> Path:
    """The folder or file of a model, downloaded where it is not here."""
    if place.path is None:
        assert place.far is not None  # a place is here or there
        return fetch(place.far)
    return place.path


def fetch_models(opened: Mapping[str, Checkpoint]) -> None:
    """Download every model that was opened to be downloaded later, and convert pickled weights."""
    for model in opened.values():
        for part in model.made_of:
            fetch_models({part.name: part})
        if isinstance(model.source, FarFiles | PickledFiles):
            model.source.fetch()

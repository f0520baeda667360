"""Models of a mergekit file; `base+adapter` is a base with a LoRA adapter on it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path

import blake3

from merge_ops.checkpoints import (
    ByteSource,
    Checkpoint,
    FolderSource,
    open_checkpoint,
)
from merge_ops.checkpoints.pickled_weights import PickledFiles, is_pickled
from merge_ops.errors import (
    CheckpointError,
    CompatibilityError,
    Fault,
    FaultsError,
    MissingModelError,
)
from orchestration.commands.far_files import FarFiles, fetch
from orchestration.commands.model_references import Place, is_there, local_path, resolve
from orchestration.commands.readable_models import folder_of_adapter, source_of
from orchestration.sizes import size_text


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
    base, plus, adapter = reference.rpartition("+")
    if not plus or not base or not adapter or is_there(local_path(reference)):
        return [reference]
    return [*folders_of(base), adapter]


def open_models(
    subject: str,
    references: Sequence[str],
    digests: Mapping[str, str] | None = None,
    download: Download = Download.NOW,
) -> dict[str, Checkpoint]:
    """Open models by reference: folders, .safetensors files, names of the Hub, `base+adapter`.

    `digests` gives those of the folders, where known. Weights without a config are merged by the
    names of their tensors. All missing models are reported at once, and so is everything wrong with
    adapters. Of a model that is downloaded `LATER` (by `fetch_models`) or `NEVER` the headers are
    read over the network.
    """
    places = find_places(subject, references)
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


def find_places(subject: str, references: Sequence[str]) -> dict[str, Place]:
    """Find the place of every model of the references, each part of a `base+adapter` for itself.

    Raises MissingModelError for all that are nowhere.
    """
    places: dict[str, Place] = {}
    missing: list[str] = []
    for folder in dict.fromkeys(part for each in references for part in folders_of(each)):
        try:
            places[folder] = resolve(folder)
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
    model = open_checkpoint(name, _source(name, place, download), digests.get(folder))
    cautions = (*model.cautions, *place.cautions)
    model = dataclasses.replace(model, origin=place.origin, cautions=cautions)
    for adapter in adapters:
        from merge_ops.sources import open_adapter

        name, place = f"{name}+{adapter}", places[adapter]
        files = _source(adapter, place, download, adapter=True)
        both = open_adapter(name, model, files, digests.get(adapter))
        change = dataclasses.replace(both.made_of[1], origin=place.origin)
        cautions = (*both.cautions, *place.cautions)
        model = dataclasses.replace(
            both, origin=None, made_of=(both.made_of[0], change), cautions=cautions
        )
    return model


def _source(reference: str, place: Place, download: Download, adapter: bool = False) -> ByteSource:
    """The files of a model, over the network where it is not here and may not be downloaded yet."""
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
    source = source_of(folder_of_adapter(path) if adapter else path, adapter)
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


def places_of(model: Checkpoint) -> Iterator[tuple[ByteSource, Path]]:
    """The places that a model opened here is read from, each with the folder or file it is."""
    for part in model.made_of:
        yield from places_of(part)
    source = model.source
    if isinstance(source, FolderSource | FarFiles | PickledFiles) and source.path is not None:
        yield source, source.path


def content_digest(folder: Path) -> str:
    """BLAKE3 of a folder's content, or of a file's."""
    if folder.is_file():
        return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(folder).hexdigest()
    from resources.upstream import open_model_source

    return open_model_source(str(folder.absolute()), relative_to=Path.cwd()).revision()

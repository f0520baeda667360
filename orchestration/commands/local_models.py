"""Local models of a mergekit file; `base+adapter` is a base with a LoRA adapter on it."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import blake3

from merge_ops.checkpoints import (
    ByteSource,
    Checkpoint,
    FolderSource,
    convert_folder,
    is_pickled,
    open_checkpoint,
)
from merge_ops.errors import CompatibilityError, Fault, FaultsError, MissingModelError
from merge_ops.sources import open_adapter


def folders_of(reference: str) -> list[str]:
    """The folders behind a reference: itself, or a base and the adapters on it, in order.

    A folder whose own name holds `+` is that folder. Adapters are split off from the end, so that
    `base+one+two` is adapter two on what adapter one makes of the base.
    """
    base, plus, adapter = reference.rpartition("+")
    if not plus or not base or not adapter or Path(reference).exists():
        return [reference]
    return [*folders_of(base), adapter]


def open_models(
    subject: str, references: Sequence[str], digests: Mapping[str, str] | None = None
) -> dict[str, Checkpoint]:
    """Open models by reference: folders, .safetensors files, `base+adapter`.

    `digests` gives those of the folders, where known. Weights without a config are merged by the
    names of their tensors. All missing folders are reported at once, and so is everything wrong
    with adapters.
    """
    missing = [
        f"'{reference}': there is no folder {Path(folder).absolute()}"
        for reference in references
        for folder in folders_of(reference)
        if not Path(folder).exists()
    ]
    if missing:
        raise MissingModelError(f"{subject}: model " + "; model ".join(missing))
    opened: dict[str, Checkpoint] = {}
    faults: list[Fault] = []
    for reference in references:
        try:
            opened[reference] = open_model(reference, digests or {})
        except FaultsError as error:
            faults += [
                Fault(f"model '{reference}': {each.where}", each.problem) for each in error.faults
            ]
    if faults:
        raise CompatibilityError(subject, faults)
    return opened


def open_model(reference: str, digests: Mapping[str, str]) -> Checkpoint:
    """Open one model: a folder, or a base with adapters on it."""
    folder, *adapters = folders_of(reference)
    name = folder
    model = open_checkpoint(name, _source(readable(folder)), digests.get(folder))
    for adapter in adapters:
        name = f"{name}+{adapter}"
        model = open_adapter(name, model, _source(readable(adapter)), digests.get(adapter))
    return model


def _source(path: Path) -> FolderSource:
    return FolderSource(path.parent, path.name) if path.is_file() else FolderSource(path)


def places_of(model: Checkpoint) -> Iterator[tuple[ByteSource, Path]]:
    """The places that a model opened here is read from, each with the folder or file it is."""
    for part in model.made_of:
        yield from places_of(part)
    if isinstance(model.source, FolderSource):
        yield model.source, model.source.path


def content_digest(folder: Path) -> str:
    """BLAKE3 of a folder's content, or of a file's."""
    if folder.is_file():
        return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(folder).hexdigest()
    from resources.upstream import open_model_source

    return open_model_source(str(folder.absolute()), relative_to=Path.cwd()).revision()


def readable(folder: str) -> Path:
    """The folder or file, or a temporary folder that its pickled weights are converted into."""
    path = Path(folder)
    if path.is_file():
        return path
    pickled = is_pickled([each.name for each in path.iterdir()])
    return _converted(path.resolve()) if pickled else path


@lru_cache(maxsize=64)
def _converted(folder: Path) -> Path:
    """A temporary folder with the same weights as safetensors; it is there until we end."""
    out = Path(tempfile.mkdtemp(prefix="ronghe-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    convert_folder(folder, out)
    return out

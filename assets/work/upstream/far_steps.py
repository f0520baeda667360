"""Steps of training runs in a bucket: are they whole, and distributed checkpoints among them.

Knows no Dagster. Of a step that is looked at the list and the headers are read. A distributed
checkpoint (DCP) is downloaded into a temporary folder, which is gone when its tensors are in the
store; its index is read in a limited child, as that of a folder is.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from merge_ops.progress import Progress
    from resources.places import Entry, Place
    from resources.upstream import FarModel, FileSink, ModelSource

CONFIG = "config.json"
_PIECE = 16 << 20  # bytes in memory at once
_MOST_BESIDE = 64 << 20  # bytes of a file beside the weights, which only configs and tokenizers are


def unready_in_bucket(uri: str) -> str | None:
    """Return why the step below a prefix has no whole weights, as far as its headers tell.

    A distributed checkpoint is whole once its index is there, which is written last.
    """
    from merge_ops.checkpoints.folders.folder_verdict import read_folder
    from resources.errors import ResourceError
    from resources.upstream import open_far_model

    try:
        if distributed_in_bucket(uri) is not None:
            return None
        verdict = read_folder(_FarBytes(open_far_model(uri))).verdict
    except (ResourceError, OSError) as error:
        return str(error)
    return "; ".join(verdict.faults) if verdict.faults else None


def distributed_in_bucket(uri: str) -> "ModelSource | None":
    """Return the distributed checkpoint below a prefix of a bucket; None where it is another model.

    Raises ResourceError where the bucket cannot be listed.
    """
    from merge_ops.checkpoints.pickles.pickled_weights import OF_ACCELERATE, index_among
    from resources.places import open_place

    place = open_place(uri)
    listed = {entry.key: entry for entry in place.children("")}
    index = index_among(listed)
    if index is None and not any(key.endswith((".safetensors", ".bin")) for key in listed):
        listed |= {entry.key: entry for entry in place.children(OF_ACCELERATE)}
        index = index_among(listed)
    return None if index is None else FarDistributedModel(uri, place, listed, index)


def copy_distributed(folder: Path, sink: "FileSink", progress: "Progress | None" = None) -> None:
    """Write a folder's distributed checkpoint as safetensors, with config and tokenizer.

    Raises CheckpointError where the index is damaged, or the config lacks.
    """
    from merge_ops.checkpoints.pickles.pickled_weights import PickledFiles
    from resources.upstream import FolderModel

    files = PickledFiles(folder)
    try:
        files.fetch()
        FolderModel(files.path).copy_to(sink, progress)
    finally:
        files.close()  # of a run there are many


class FarDistributedModel:
    """A distributed checkpoint below a prefix of a bucket, with its `entries` by their keys there.

    Config and tokenizer lie beside it, or below the run's prefix, which is one level higher. The
    revision is made of keys, sizes and ETags; nothing is downloaded for it.
    """

    def __init__(
        self, uri: str, place: "Place", entries: Mapping[str, "Entry"], index: str
    ) -> None:
        self.location = uri.rstrip("/")
        self._step = _Below(place, _wanted(entries, PurePosixPath(index).parent.as_posix()))
        self._run: _Below | None = None

    def revision(self, progress: "Progress | None" = None) -> str:
        """Return the blake3 of the keys, sizes and ETags of what would be downloaded."""
        hasher = blake3()
        for below in self._all():
            for key, entry in sorted(below.entries.items()):
                hasher.update(f"\n{key} {entry.size} {entry.tag}".encode())
            hasher.update(b"\n")
        return hasher.hexdigest()

    def resolved(self) -> str:
        """Return the URI: a bucket has no commits that one could name."""
        return self.location

    def copy_to(self, sink: "FileSink", progress: "Progress | None" = None) -> None:
        """Write the tensors as safetensors, with config and tokenizer, into `sink`.

        Raises ResourceError where an object cannot be read or is another one than was listed,
        CheckpointError where the index is damaged, or the config lacks.
        """
        from merge_ops.children import OwnFolder

        with OwnFolder() as run:
            folder = run / "step"
            for below, into in zip(self._all(), (folder, run), strict=False):
                below.download(into, self.location)
            copy_distributed(folder, sink, progress)

    def _all(self) -> list["_Below"]:
        """What is downloaded: the step's objects, and the run's where the step has no config."""
        if CONFIG in self._step.entries:
            return [self._step]
        if self._run is None:
            from resources.places import open_place

            place = open_place(self.location.rpartition("/")[0])
            listed = {entry.key: entry for entry in place.children("")}
            self._run = _Below(place, _wanted(listed, None))
        return [self._step, self._run]


def _wanted(entries: Mapping[str, "Entry"], weights: str | None) -> dict[str, "Entry"]:
    """The small files at the top, and all in the folder of the weights (`.` for the top)."""
    found: dict[str, Entry] = {}
    for key, entry in entries.items():
        at = PurePosixPath(key).parent.as_posix()
        if at == weights or (at == "." and _is_beside(key, entry)):
            found[key] = entry
    return found


def _is_beside(key: str, entry: "Entry") -> bool:
    from merge_ops.checkpoints.pickles.pickled_weights import WEIGHTS

    return entry.size <= _MOST_BESIDE and not key.endswith(WEIGHTS)


class _Below:
    """Objects below a prefix, each of the version that was listed."""

    def __init__(self, place: "Place", entries: Mapping[str, "Entry"]) -> None:
        self._place, self.entries = place, entries

    def download(self, folder: Path, location: str) -> None:
        """Write the objects into a folder. Raises ResourceError."""
        from resources.errors import MissingSourceError, ModelSourceError

        for key, entry in self.entries.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = memoryview(bytearray(max(1, min(_PIECE, entry.size))))
            try:
                reader = self._place.open_reader(key, entry.tag)
                with contextlib.closing(reader), path.open("wb") as file:
                    for offset in range(0, entry.size, len(buffer)):
                        piece = buffer[: min(len(buffer), entry.size - offset)]
                        if reader.read_into(offset, piece) != len(piece):
                            problem = f"{key} ended before its {entry.size:,} bytes"
                            raise ModelSourceError(f"model source {location}: {problem}")
                        file.write(piece)
            except FileNotFoundError as error:
                raise MissingSourceError(
                    f"model source {location}: {key} was listed and is gone; it is being changed,"
                    " so try again"
                ) from error


class _FarBytes:
    """The files of a far model as a source of bytes, of which headers are read."""

    def __init__(self, far: "FarModel") -> None:
        self._far = far
        self.location = far.resolved()

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes, by its relative POSIX path."""
        return self._far.sizes()

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise OSError."""
        data = self._far.read(file, offset, len(buffer))
        if len(data) != len(buffer):
            raise OSError(f"{self.location}/{file} ends at byte {offset + len(data)}")
        buffer[:] = data

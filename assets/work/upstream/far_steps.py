"""Steps of training runs in a bucket: are they whole, and distributed checkpoints among them.

Knows no Dagster. Of a step that is looked at the list and the headers are read. A distributed
checkpoint (DCP) is downloaded into a temporary folder, which is gone when its tensors are in the
store; its index is read in a limited child, as that of a folder is.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from merge_ops.progress import Progress
    from resources.places import Entry
    from resources.upstream import BucketFolder, FileSink, ModelSource

CONFIG = "config.json"
_MOST_BESIDE = 64 << 20  # bytes of a file beside the weights, which only configs and tokenizers are

_Objects = tuple["BucketFolder", Mapping[str, "Entry"]]
"""A folder of a bucket, and those of its objects that are downloaded, by their keys."""


def unready_in_bucket(uri: str) -> str | None:
    """Return why the step below a prefix has no whole weights, as far as its headers tell.

    A distributed checkpoint is whole once its index is there, which is written last.
    """
    from merge_ops.checkpoints.folders.folder_verdict import read_folder
    from resources.errors import ResourceError
    from resources.reading import FarBytes
    from resources.upstream import open_far_model

    try:
        if distributed_in_bucket(uri) is not None:
            return None
        verdict = read_folder(FarBytes(open_far_model(uri))).verdict
    except (ResourceError, OSError) as error:
        return str(error)
    return "; ".join(verdict.faults) if verdict.faults else None


def distributed_in_bucket(uri: str) -> "ModelSource | None":
    """Return the distributed checkpoint below a prefix of a bucket; None where it is another model.

    Raises ResourceError where the bucket cannot be listed.
    """
    from merge_ops.checkpoints.pickles.pickled_weights import OF_ACCELERATE, index_among
    from resources.upstream import BucketFolder

    folder = BucketFolder(uri)
    listed = {entry.key: entry for entry in folder.children()}
    index = index_among(listed)
    if index is None and not any(key.endswith((".safetensors", ".bin")) for key in listed):
        listed |= {entry.key: entry for entry in folder.children(OF_ACCELERATE)}
        index = index_among(listed)
    return None if index is None else FarDistributedModel(folder, listed, index)


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
    """A distributed checkpoint in a folder of a bucket, with its `entries` by their keys there.

    Config and tokenizer lie beside it, or in the run's folder, which is one level higher. The
    revision is made of keys, sizes and ETags; nothing is downloaded for it.
    """

    def __init__(self, folder: "BucketFolder", entries: Mapping[str, "Entry"], index: str) -> None:
        self.location = folder.location
        self._step: _Objects = folder, _wanted(entries, PurePosixPath(index).parent.as_posix())
        self._run: _Objects | None = None

    def revision(self, progress: "Progress | None" = None) -> str:
        """Return the blake3 of the keys, sizes and ETags of what would be downloaded."""
        hasher = blake3()
        for _, entries in self._all():
            for key, entry in sorted(entries.items()):
                hasher.update(f"\n{key} {entry.size} {entry.tag}".encode())
            hasher.update(b"\n")
        return hasher.hexdigest()

    def resolved(self) -> str:
        """Return the URI: a bucket has no commits that one could name."""
        return self.location

    def copy_to(self, sink: "FileSink", progress: "Progress | None" = None) -> None:
        """Write the tensors as safetensors, with config and tokenizer, into `sink`.

        Raises ResourceError where an object cannot be read, is another one than was listed or came
        with other bytes, CheckpointError where the index is damaged, or the config lacks.
        """
        from merge_ops.checkpoints import FolderSink
        from merge_ops.children import OwnFolder

        with OwnFolder() as run:
            step = run / "step"
            for (folder, entries), into in zip(self._all(), (step, run), strict=False):
                folder.copy(entries, FolderSink(into))
            copy_distributed(step, sink, progress)

    def _all(self) -> list[_Objects]:
        """What is downloaded: the step's objects, and the run's where the step has no config."""
        folder, entries = self._step
        if CONFIG in entries:
            return [self._step]
        above = folder.above()
        if self._run is None and above is not None:
            listed = {entry.key: entry for entry in above.children()}
            self._run = above, _wanted(listed, None)
        return [self._step] if self._run is None else [self._step, self._run]


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

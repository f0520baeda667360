"""Experts kept as their base's digest and an exact difference. Knows no Dagster.

A packed model is an artifact of its own kind, under the digest of the files it restores: the same
digest that the full model has. So a name points to the same digest whichever way a model is kept,
and plans, scores and studies made from it are the same. The base it was packed against is named in
its manifest, and stays in the store like everything that is published.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.unpickling import copy_unpickled
from merge_ops.errors import PackedModelError

if TYPE_CHECKING:
    from merge_ops.sources import PackedIndex, PackedSource
    from resources.reading import Progress
    from resources.store import Artifact, ArtifactStore, Pin
    from resources.upstream import ModelSource

MODEL, PACKED = "model", "packed_model"
LEAST_SAVING = 0.2


@dataclass(frozen=True)
class Saving:
    """A saving is what packing did, or would have done: bytes before and after, and the choice."""

    nbytes: int
    packed_nbytes: int
    kept: bool

    @property
    def share(self) -> float:
        """The share of bytes saved."""
        return 1 - self.packed_nbytes / self.nbytes


class RestoredModel:
    """A packed model as it was: the same files, bytes and digest, made while they are read.

    Stands wherever a published model does. PackedModelError where the artifact is damaged.
    """

    def __init__(self, store: "ArtifactStore", packed: "Artifact") -> None:
        from resources.errors import MissingArtifactError
        from resources.reading import FileRecord, content_digest

        self.packed = packed
        self.kind, self.uri = MODEL, packed.uri
        self.digest = self.content_digest = packed.digest
        self._store = store
        self._pins: dict[Path, Pin] = {}
        self._opened: list[PackedSource] = []
        below = str(packed.manifest["base"]["digest"])
        base = store.find(MODEL, below)
        if base is None:
            raise MissingArtifactError(
                f"{self.uri}: its base, model artifact {below}, is not in artifact store"
                f" {store.uri}; `ronghe verify --repair` sets the packed model aside, and the next"
                " `ronghe refresh` pulls both again"
            )
        self._base = base
        self._opened.append(self.source())
        index = self._opened[0].index
        self.files: Mapping[str, FileRecord] = {
            each.path: FileRecord(each.path, each.size, each.blake3) for each in index.files
        }
        self.nbytes = index.nbytes
        if content_digest(self.files.values()) != self.digest:
            raise PackedModelError(
                f"{self.uri}: its index lists other files than the model {self.digest} has; `ronghe"
                " verify --repair` sets it aside, and the next `ronghe refresh` pulls it again"
            )

    def source(self) -> "PackedSource":
        """Open the files as they were for random access; thread-safe."""
        with suppress(IndexError):  # whoever opens a model reads it: its headers once, not twice
            return self._opened.pop()
        from merge_ops.checkpoints import open_checkpoint
        from merge_ops.sources import PackedSource

        base = open_checkpoint("its base", self._base.source(), self._base.digest)
        return PackedSource(self.packed.source(), base)

    def folder(self, cache: Path | None = None, progress: "Progress | None" = None) -> Path:
        """Restore the files into the bounded cache, and return their folder.

        What is there is compared with their hashes each time, and restored again where it differs.
        It stays there at least as long as this object lives.
        """
        chosen = self._store.cache if cache is None else self._store.cache.at(cache)
        held = self._pins.get(chosen.root)
        self._pins[chosen.root] = chosen.pull(self, progress, held)
        return self._pins[chosen.root].folder


if TYPE_CHECKING:
    StoredModel = Artifact | RestoredModel


def as_it_was(store: "ArtifactStore", artifact: "Artifact") -> "StoredModel":
    """Give readers a model as it was pulled, whether it is kept packed or not."""
    return RestoredModel(store, artifact) if artifact.kind == PACKED else artifact


def stored_model(store: "ArtifactStore", name: str) -> "StoredModel | None":
    """Open what a model's name stands for now; None where it was never pulled."""
    artifact = store.resolve(MODEL, name)
    return None if artifact is None else as_it_was(store, artifact)


def pull_packed(
    store: "ArtifactStore",
    model: UpstreamModel,
    source: "ModelSource",
    base: "StoredModel",
    progress: "Progress | None" = None,
    **fields: Any,
) -> tuple["Artifact", Saving]:
    """Pull an expert and publish it packed against `base`, or full where that saves too little.

    It is packed on its way, into a temporary folder; before anything is published it is restored
    from there and compared with what came, byte for byte. `fields` go into the manifest.
    """
    from merge_ops.checkpoints import FolderSource, open_checkpoint
    from merge_ops.jobs.packing import PackingSink
    from merge_ops.jobs.restoring import Nowhere, restore
    from merge_ops.sources import PackedSource
    from merge_ops.working_folders import working_folder

    below = open_checkpoint(str(model.base), base.source(), base.digest)
    with working_folder() as work:
        folder = work / "packed"
        folder.mkdir()
        with PackingSink(folder, below, called=source.location) as sink:
            copy_unpickled(source, sink, progress)
            index = sink.finish()
        packed = PackedSource(FolderSource(folder), below)
        saving = Saving(index.nbytes, index.packed_nbytes, False)
        if model.store == "packed" or saving.share >= LEAST_SAVING:
            saving = Saving(index.nbytes, index.packed_nbytes, True)
            restore(packed, Nowhere())
            return _publish(store, folder, index, fields), saving
        with store.attempt(MODEL) as attempt:
            restore(packed, attempt)
            return attempt.publish(**fields), saving


def _publish(
    store: "ArtifactStore", folder: Path, index: "PackedIndex", fields: dict[str, Any]
) -> "Artifact":
    """Publish, or take the same model as another release packed it, or against another base."""
    from merge_ops.checkpoints import FolderSource
    from merge_ops.jobs.restoring import copy_files
    from resources.errors import ContentConflictError
    from resources.reading import FileRecord, content_digest

    records = [FileRecord(each.path, each.size, each.blake3) for each in index.files]
    digest, base = content_digest(records), {"kind": MODEL, "digest": index.base}
    with store.attempt(PACKED) as attempt:
        copy_files(FolderSource(folder), attempt)
        try:
            return attempt.publish(digest, base=base, unpacked_bytes=index.nbytes, **fields)
        except ContentConflictError:
            return store.get(PACKED, digest)

"""Steps that are distributed checkpoints of PyTorch (DCP), as models that can be pulled.

Knows no Dagster. Their index is read in a limited child, and nothing in it is run; what goes into
the store are safetensors.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from assets.work.upstream.entries import UpstreamModel

if TYPE_CHECKING:
    from merge_ops.progress import Progress
    from resources.upstream import FileSink, ModelSource


def source_of_model(model: UpstreamModel, folder: Path) -> "ModelSource":
    """Open the place that a model comes from; of a distributed checkpoint its tensors.

    `folder` is the catalog's. Raises what `open_model_source` raises.
    """
    from merge_ops.checkpoints.pickles.pickled_weights import metadata_of
    from resources.upstream import FolderModel, open_model_source

    source = open_model_source(model.source, folder, follow_links=model.follow_links)
    if isinstance(source, FolderModel) and model.kind == "full" and source.folder.is_dir():
        index = metadata_of(source.folder)
        if index is not None:
            return DistributedModel(source.folder, index)
    if model.kind == "full" and model.source.startswith("s3://"):
        from assets.work.upstream.far_steps import distributed_in_bucket

        return distributed_in_bucket(model.source) or source
    return source


class DistributedModel:
    """A folder of a distributed checkpoint; `index` is its `.metadata`, relative to it.

    The revision is made of the index's content, and of sizes and times of the other files: it is
    looked at often, and a file that was touched alone costs one more reading.
    """

    def __init__(self, folder: Path, index: str) -> None:
        self.folder, self.location = folder, str(folder)
        self._index = folder / index

    def revision(self, progress: "Progress | None" = None) -> str:
        """Return the blake3 of the index, and of every other file's name, size and time.

        Raises ModelSourceError where the folder cannot be read.
        """
        from merge_ops.checkpoints.pickles.pickled_weights import folder_with_config
        from resources.errors import ModelSourceError

        hasher = blake3()
        try:
            hasher.update(self._index.read_bytes())
            beside = folder_with_config(self.folder)
            places = dict.fromkeys((self._index.parent, beside))
            for file in sorted(file for place in places for file in place.iterdir()):
                if file.is_file():
                    state = file.stat()
                    hasher.update(f"\n{file.name} {state.st_size} {state.st_mtime_ns}".encode())
        except OSError as error:
            told = error.strerror or str(error)
            raise ModelSourceError(
                f"model source {self.location} cannot be read: {told}; check that this user may"
                " read the folder"
            ) from error
        return hasher.hexdigest()

    def resolved(self) -> None:
        """Return None: a folder's name says nothing elsewhere."""

    def copy_to(self, sink: "FileSink", progress: "Progress | None" = None) -> None:
        """Write the tensors as safetensors, with config and tokenizer, into `sink`.

        Raises CheckpointError where the index is damaged, or the config lacks.
        """
        from assets.work.upstream.far_steps import copy_distributed

        copy_distributed(self.folder, sink, progress)

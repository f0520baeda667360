"""Pickled weights of an upstream model, converted on their way into the store."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_ops.progress import Progress
    from resources.upstream import FileSink, FileWriter, ModelSource

PICKLED = (".bin", ".bin.index.json")


def copy_unpickled(
    source: "ModelSource", sink: "FileSink", progress: "Progress | None" = None
) -> None:
    """Copy a model into `sink`, with safetensors in place of pickled weights.

    `progress` hears of the bytes that came, and of how many will.

    The store never holds a pickle: those files wait in a temporary folder, where a limited
    child reads them. Raises CheckpointError where one asks for more than tensors, which is not run.
    """
    from merge_ops.checkpoints.pickles.pickled_weights import convert_folder
    from merge_ops.children import OwnFolder
    from resources.upstream import FolderModel

    with OwnFolder() as place:
        held, out = place / "held", place / "out"
        held.mkdir()
        out.mkdir()
        source.copy_to(_Divided(sink, held), progress)
        waiting = sorted(held.iterdir())
        if any(path.suffix == ".bin" for path in waiting):
            convert_folder(held, out, called=source.location)
            FolderModel(out).copy_to(sink)
            return
        for path in waiting:  # an index of pickles beside safetensors, as many models have it
            with sink.open(path.name, path.stat().st_size) as file:
                file.write(memoryview(path.read_bytes()))


class _Divided:
    """A sink that keeps pickled weights and their index in a folder, and hands on the rest."""

    def __init__(self, sink: "FileSink", folder: Path) -> None:
        self._sink = sink
        self._folder = folder

    def open(self, file: str, size: int) -> "AbstractContextManager[FileWriter]":
        """Start a file of `size` bytes, here or there."""
        from merge_ops.checkpoints import FolderSink

        if "/" not in file and file.endswith(PICKLED):
            return FolderSink(self._folder).open(file, size)
        return self._sink.open(file, size)

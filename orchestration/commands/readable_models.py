"""Folders and files of models in a form that can be opened: pickled weights as safetensors."""

from functools import lru_cache
from pathlib import Path

from merge_ops.checkpoints import FolderSource
from merge_ops.checkpoints.folder_verdict import read_folder
from merge_ops.checkpoints.pickled_weights import PICKLES, PickledFiles, is_pickled


def folder_of_adapter(path: Path) -> Path:
    """The folder of an adapter, which may be named by its file of weights."""
    return path.parent if path.is_file() and path.stem == "adapter_model" else path


def source_of(path: Path, adapter: bool = False) -> FolderSource | PickledFiles:
    """The files of a folder, or one file, with pickled weights as if they were safetensors.

    Of pickles the index is read at once, and their tensors when they are needed. With `adapter`
    only those of an adapter count. Where the folder is none that can be read, it is returned as it
    is, and whoever opens it says why.
    """
    if _needs_conversion(path, adapter):
        return _pickled(path.resolve(), adapter)
    return FolderSource(path.parent, path.name) if path.is_file() else FolderSource(path)


def readable(path: Path, adapter: bool = False) -> Path:
    """The folder or file, or a temporary one that its pickled weights are converted into."""
    source = source_of(path, adapter)
    if isinstance(source, FolderSource):
        return path
    source.fetch()
    return source.path


def _needs_conversion(path: Path, adapter: bool) -> bool:
    if path.is_file():
        return path.suffix in PICKLES
    if not is_pickled([each.name for each in path.iterdir()]):
        return False
    verdict = read_folder(FolderSource(path), adapter).verdict
    return not verdict.faults and verdict.pickled


@lru_cache(maxsize=64)
def _pickled(path: Path, adapter: bool) -> PickledFiles:
    return PickledFiles(path, adapter)

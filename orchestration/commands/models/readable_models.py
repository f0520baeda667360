"""Folders and files of models in a form that can be opened: pickled weights as safetensors."""

from functools import lru_cache
from pathlib import Path

from merge_ops.checkpoints import FolderSource
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.pickles.pickled_weights import (
    PICKLES,
    PickledFiles,
    is_pickled,
    metadata_of,
)


def folder_of_adapter(path: Path) -> Path:
    """The folder of an adapter, which may be named by its file of weights."""
    return path.parent if path.is_file() and path.stem == "adapter_model" else path


def source_of(
    path: Path, adapter: bool = False, follow_links: bool = False
) -> FolderSource | PickledFiles:
    """The files of a folder, or one file, with pickled weights as if they were safetensors.

    Of pickles the index is read at once, and their tensors when they are needed. With `adapter`
    only those of an adapter count. Where the folder is none that can be read, it is returned as it
    is, and whoever opens it says why.
    """
    if _needs_conversion(path, adapter, follow_links):
        return _pickled(path.resolve(), adapter, follow_links)
    folder, only = (path.parent, path.name) if path.is_file() else (path, None)
    return FolderSource(folder, only, remembers=True, follow_links=follow_links)


def readable(path: Path, adapter: bool = False, follow_links: bool = False) -> Path:
    """The folder or file, or a temporary one that its pickled weights are converted into."""
    source = source_of(path, adapter, follow_links)
    if isinstance(source, FolderSource):
        return path
    source.fetch()
    return source.path


def _needs_conversion(path: Path, adapter: bool, follow_links: bool) -> bool:
    if path.is_file():
        return path.suffix in PICKLES
    if path.is_dir() and not adapter and metadata_of(path) is not None:
        return True
    if not path.is_dir() or not is_pickled([each.name for each in path.iterdir()]):
        return False
    verdict = read_folder(FolderSource(path, follow_links=follow_links), adapter).verdict
    return not verdict.faults and verdict.pickled


def unreadable(path: Path) -> str | None:
    """Why what is at `path` is no whole model, by its names and headers; None where it is one."""
    if path.is_file() or metadata_of(path) is not None:
        return None
    verdict = read_folder(FolderSource(path)).verdict
    return "; ".join(verdict.faults) if verdict.faults else None


@lru_cache(maxsize=64)
def _pickled(path: Path, adapter: bool, follow_links: bool) -> PickledFiles:
    return PickledFiles(path, adapter, follow_links)

"""Folders and files of models in a form that can be opened: pickled weights converted before."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from merge_ops.checkpoints import FolderSource
from merge_ops.checkpoints.folder_verdict import read_folder
from merge_ops.checkpoints.pickled_weights import (
    PICKLES,
    convert_file,
    convert_folder,
    is_pickled,
)


def folder_of_adapter(path: Path) -> Path:
    """The folder of an adapter, which may be named by its file of weights."""
    return path.parent if path.is_file() and path.stem == "adapter_model" else path


def readable(path: Path, adapter: bool = False) -> Path:
    """The folder or file, or a temporary one that its pickled weights are converted into.

    With `adapter` only those of an adapter count. Where the folder is none that can be read, it is
    returned as it is, and whoever opens it says why.
    """
    if path.is_file():
        return _converted_file(path.resolve()) if path.suffix in PICKLES else path
    if not is_pickled([each.name for each in path.iterdir()]):
        return path
    verdict = read_folder(FolderSource(path), adapter).verdict
    if verdict.faults or not verdict.pickled:
        return path
    return _converted(path.resolve(), adapter)


@lru_cache(maxsize=64)
def _converted(folder: Path, adapter: bool) -> Path:
    """A temporary folder with the same weights as safetensors; it is there until we end."""
    out = _temporary()
    convert_folder(folder, out, adapter=adapter)
    return out


@lru_cache(maxsize=64)
def _converted_file(file: Path) -> Path:
    """A temporary file with the same weights as safetensors; it is there until we end."""
    return convert_file(file, _temporary())


def _temporary() -> Path:
    out = Path(tempfile.mkdtemp(prefix="ronghe-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    return out

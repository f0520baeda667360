"""Folders whose verdict is asked, and two ways to spoil them."""

from pathlib import Path

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from tests.models import checkpoint_factory as factory

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)
INDEX = "model.safetensors.index.json"


def verdict_of(folder: Path):
    return read_folder(FolderSource(folder)).verdict


def write_old_shards(folder: Path, count: int = 2) -> factory.Tensors:
    """Shards and an index of other weights, beside what is there."""
    old = factory.base_tensors(SHAPE, seed=77)
    factory.write_weights(folder, old, count)
    return old


def index_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_old_shards(folder)

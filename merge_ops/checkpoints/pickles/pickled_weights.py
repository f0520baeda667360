"""Folders with pickled weights (`.bin`), converted to safetensors before anything opens them.

A pickle is a program. It is read by a limited child, by a reader that knows the places of tensors
and plain containers and nothing else; a file that asks for more is refused, and nothing of it is
run.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from merge_ops.checkpoints.files.file_names import (
    INDEX,
    PICKLE_INDEX,
    PICKLES,
    SINGLE,
    WEIGHTS,
    is_index,
    loose_pickles,
)
from merge_ops.checkpoints.pickles.dcp_folders import (
    OF_ACCELERATE,
    folder_with_config,
    index_among,
    metadata_of,
)
from merge_ops.checkpoints.pickles.pickled_files import PickledFiles
from merge_ops.checkpoints.pickles.pickled_parts import PickledParts, PickleReader

__all__ = [
    "OF_ACCELERATE",
    "PICKLES",
    "WEIGHTS",
    "PickledFiles",
    "convert_folder",
    "folder_with_config",
    "index_among",
    "is_pickled",
    "metadata_of",
]


def is_pickled(files: Collection[str]) -> bool:
    """Return whether the weights of a folder with these files may be pickles.

    They are not where transformers finds safetensors; else `read_folder` tells for certain.
    """
    plain = SINGLE in files or any(map(is_index, files))
    return not plain and bool(loose_pickles(files))


def convert_folder(
    folder: Path, out: Path, called: str | None = None, adapter: bool = False
) -> None:
    """Write the folder's weights as safetensors into `out`, with the small files beside them.

    `called` is what messages call the folder. With `adapter` only an adapter's file is converted.
    Raises CheckpointError where a file is damaged or holds anything but tensors, where an index
    names files outside the folder, where two whole sets of weights are there, and where the child
    that reads them ended.
    """
    parts = PickledParts.find(folder, called, adapter)
    with PickleReader(parts.place) as reader:
        for old, new in sorted(parts.renamed.items()):
            reader.convert(folder / old, out / new)
    if parts.index is not None:
        (out / INDEX).write_bytes(parts.index)
    for path in folder.iterdir():
        if path.is_file() and path.name != PICKLE_INDEX and not path.name.endswith(WEIGHTS):
            shutil.copyfile(path, out / path.name)

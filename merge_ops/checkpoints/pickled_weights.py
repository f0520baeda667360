"""Folders with pickled weights (`.bin`), converted to safetensors before anything opens them.

A pickle is a program. It is read by a process of its own, by torch's loader that knows tensors and
plain containers and nothing else; a file that asks for more is refused, and nothing of it is run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, cast

from merge_ops.checkpoints import convert_pickles
from merge_ops.checkpoints.file_names import (
    ADAPTER_PICKLE,
    INDEX,
    PICKLE,
    PICKLE_INDEX,
    PICKLES,
    SINGLE,
    WEIGHTS,
    is_index,
    loose_pickles,
)
from merge_ops.errors import CheckpointError

__all__ = ["PICKLES", "convert_file", "convert_folder", "is_pickled"]

_FOREIGN = re.compile(r"GLOBAL (\S+) was not an allowed global")


def is_pickled(files: Collection[str]) -> bool:
    """Return whether the weights of a folder with these files may be pickles.

    They are not where transformers finds safetensors; else `read_folder` tells for certain.
    """
    plain = SINGLE in files or any(map(is_index, files))
    return not plain and bool(loose_pickles(files))


def convert_file(file: Path, out: Path) -> Path:
    """Write one pickled file as safetensors into the folder `out` and return the new file.

    Raises what `convert_folder` raises.
    """
    _need_torch()
    made = out / _renamed(file.name)
    _run(str(file), [str(file), str(made)])
    return made


def convert_folder(
    folder: Path, out: Path, called: str | None = None, adapter: bool = False
) -> None:
    """Write the folder's weights as safetensors into `out`, with the small files beside them.

    `called` is what messages call the folder. With `adapter` only an adapter's file is converted.
    Raises CheckpointError where a file is damaged or holds anything but tensors, where an index
    names files outside the folder, and where two whole sets of weights are there, and
    ModuleNotFoundError without torch, which reads pickles.
    """
    _need_torch()
    index, place = folder / PICKLE_INDEX, called or str(folder)
    plain = [name for name in (ADAPTER_PICKLE, PICKLE) if (folder / name).is_file()]
    names = _shards(index, f"{place}/{PICKLE_INDEX}") if index.is_file() and not adapter else {}
    if adapter:
        plain = [ADAPTER_PICKLE]
    elif names and PICKLE in plain:
        if all((folder / name).is_file() for name in names.values()):
            raise CheckpointError(
                f"{place} holds two sets of weights, {PICKLE} and the shards of {PICKLE_INDEX}, and"
                f" both are whole; remove or move the one that is not meant (transformers takes"
                f" {PICKLE})"
            )
        names = {}
    elif not names and not plain:
        plain = loose_pickles([path.name for path in folder.iterdir() if path.is_file()])
    renamed = {name: _renamed(name) for name in (*names.values(), *plain)}
    for name in renamed:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{place}/{PICKLE_INDEX}: shard {name} is not there; download it again"
            )
    pairs = [
        str(path) for old, new in sorted(renamed.items()) for path in (folder / old, out / new)
    ]
    _run(place, pairs)
    if names:
        table = {"metadata": {}, "weight_map": {key: renamed[file] for key, file in names.items()}}
        text = json.dumps(table, indent=2, ensure_ascii=False)
        (out / INDEX).write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.is_file() and path.name != PICKLE_INDEX and not path.name.endswith(WEIGHTS):
            shutil.copyfile(path, out / path.name)


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def _run(place: str, pairs: list[str]) -> None:
    command = [sys.executable, "-P", str(convert_pickles.__file__), *pairs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    told = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
    foreign = _FOREIGN.search(told)
    if foreign:
        told = f"it wants to call {foreign[1]}, and weights have no need of that"
    raise CheckpointError(
        f"{place}: its pickled weights are refused, and nothing in them was run: {told[:400]}."
        " Ask for safetensors, or convert the file where it came from"
    )


def _shards(index: Path, called: str) -> dict[str, str]:
    """Tensor → file of pytorch_model.bin.index.json."""
    try:
        table: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        found = {str(key): str(file) for key, file in cast(dict[Any, Any], table).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{called}: 'weight_map' is missing or no table") from error
    for file in found.values():
        if PurePosixPath(file).name != file or "\\" in file or not file.endswith(".bin"):
            raise CheckpointError(f"{called}: shard {file!r} is no .bin file beside the index")
    return found


def _renamed(name: str) -> str:
    """The safetensors file of a pickle: model.safetensors for pytorch_model.bin, else its own."""
    if name.startswith("pytorch_model"):
        name = name.removeprefix("pytorch_")
    return f"{name.rpartition('.')[0]}.safetensors"

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
from merge_ops.errors import CheckpointError

ADAPTER, SINGLE = "adapter_model.bin", "pytorch_model.bin"
INDEX = f"{SINGLE}.index.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf")
_FOREIGN = re.compile(r"GLOBAL (\S+) was not an allowed global")


def is_pickled(files: Collection[str]) -> bool:
    """Return whether a folder with these files has its weights in pickles alone.

    Pickles count under the names that PEFT and transformers give them.
    """
    if any(file.endswith(".safetensors") for file in files):
        return False
    return any(name in files for name in (ADAPTER, SINGLE, INDEX))


def convert_folder(folder: Path, out: Path, called: str | None = None) -> None:
    """Write the folder's weights as safetensors into `out`, with the small files beside them.

    `called` is what messages call the folder. Raises CheckpointError where a file is damaged or
    holds anything but tensors, and where an index names files outside the folder, and
    ModuleNotFoundError without torch, which reads pickles.
    """
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    index, place = folder / INDEX, called or str(folder)
    names = _shards(index, f"{place}/{INDEX}") if index.is_file() else {}
    plain = [name for name in (ADAPTER, SINGLE) if (folder / name).is_file()]
    renamed = {name: _renamed(name) for name in (set(names.values()) or plain)}
    for name in renamed:
        if not (folder / name).is_file():
            raise CheckpointError(f"{place}/{INDEX}: shard {name} is not there; download it again")
    pairs = [
        str(path) for old, new in sorted(renamed.items()) for path in (folder / old, out / new)
    ]
    _run(place, pairs)
    if names:
        table = {"metadata": {}, "weight_map": {key: renamed[file] for key, file in names.items()}}
        text = json.dumps(table, indent=2, ensure_ascii=False)
        (out / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.is_file() and path.name != INDEX and not path.name.endswith(WEIGHTS):
            shutil.copyfile(path, out / path.name)


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
    return name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"

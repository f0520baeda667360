"""The one child of a process that builds and runs models: it is kept, so that none pays a start."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from merge_ops.children.limited_child import LimitedChild, Tell
from merge_ops.children.memory_folder import MemoryFile, has_memory_files
from merge_ops.children.model_view import HIDDEN

LEAST_MEMORY, TIMES_WEIGHTS = 8 << 30, 4
"""Bytes of data that a model's child may take: so many, and so many times its weights."""
MORE_WITH_GPU = 32 << 30
"""And so many more where it uses a GPU, whose driver takes buffers of the host. (Address space, of
which it reserves terabytes, is not bounded.)"""
CPU_SECONDS = 14 * 24 * 3600
"""CPU time of one request, of all threads together; tokenizers have far less (eval_ops)."""
OPEN_FILES = 65_536


def ask_of_model(
    module: str,
    folder: Path,
    request: Mapping[str, Any],
    doing: str,
    *,
    cuda: bool = False,
    cpu_seconds: int = CPU_SECONDS,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Return the answer of this process's child to a request on the model in `folder`.

    The module is given `folder` as a view of it (model_view.py). Raises what LimitedChild raises.
    """
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    memory = LEAST_MEMORY + TIMES_WEIGHTS * weights + (MORE_WITH_GPU if cuda else 0)
    return model_child(cuda).ask(
        {**request, "folder": str(folder.absolute())},
        doing,
        module=module,
        memory=memory,
        cpu_seconds=cpu_seconds,
        tell=tell,
        view="folder",
    )


def ask_for_tokens(
    module: str, folder: Path, request: Mapping[str, Any], doing: str
) -> dict[str, Any]:
    """Return the answer of a child that works with a tokenizer alone, and ends then.

    For it torch is not installed: transformers starts in a third of the time without. Raises what
    LimitedChild raises.
    """
    child = LimitedChild(
        "merge_ops.children.model_view",
        memory=LEAST_MEMORY,
        cpu_seconds=CPU_SECONDS,
        open_files=OPEN_FILES,
        hidden=(*HIDDEN, "torch", "torchvision", "torchaudio"),
        environment=_caches(),
    )
    with child:
        asked = {**request, "folder": str(folder.absolute())}
        return child.ask(asked, doing, module=module, view="folder")


@lru_cache
def model_child(cuda: bool) -> LimitedChild:
    """Return this process's child that runs models, on CPUs or with GPUs."""
    child = LimitedChild(
        "merge_ops.children.model_view",
        memory=LEAST_MEMORY,
        cpu_seconds=CPU_SECONDS,
        open_files=OPEN_FILES,
        cuda=cuda,
        hidden=HIDDEN,
        environment=_caches(),
    )
    atexit.register(child.close)
    return child


@lru_cache
def shares_memory(cuda: bool) -> bool:
    """Return whether the child that runs models can read memory of this process.

    It cannot where the system has none that could be opened by a path, or hides processes from one
    another. Asked once a process.
    """
    if not has_memory_files():
        return False
    probe = MemoryFile(len(_PROBE))
    try:
        probe.write(_PROBE)
        found = model_child(cuda).ask(
            {"path": str(probe.path)},
            "looks whether it can read this process's memory",
            module="merge_ops.children.memory_folder",
        )
    finally:
        probe.close()
    return found.get("bytes") == _PROBE.decode("ascii")


_PROBE = b"is this readable?"


def _caches() -> dict[str, str]:
    """Where data sets of the Hub lie, which benchmarks ask for; what lies there is only read."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    given = {
        name: os.environ[name]
        for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE")
        if name in os.environ
    }
    return {"HF_HOME": os.environ.get("HF_HOME") or f"{home}/huggingface", **given}

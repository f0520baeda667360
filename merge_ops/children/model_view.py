"""What of a model's folder decides the model, as a folder of its own: links, and a plain config.

What loads a folder looks for more than what its digest stands for, and what it does then hangs on
what else is installed: an adapter_config.json is taken by PEFT, a kernel that the config names
comes from the Hub. Here such files and keys are left out, so that a score or a check is the same on
every machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

CONFIG = "config.json"
HIDDEN = (
    "peft", "flash_attn", "flash_attn_3", "flash_attn_interface", "kernels", "xformers", "apex",
    "liger_kernel", "mamba_ssm", "causal_conv1d", "fla", "deepspeed",
)  # fmt: skip
"""Packages that change what a model computes where they are installed; its child has none."""

_MOST_CONFIG = 64 << 20
_LEFT_OUT = ("adapter_config.json", "adapter_model.", "pytorch_lora_weights.")
_NOT_TAKEN = (  # code, and weights of other programs
    ".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".distcp", ".h5", ".msgpack", ".onnx",
    ".npz", ".tflite", ".mlmodel", ".nemo", ".ot", ".pdparams", ".engine", ".zip", ".tar", ".gz",
)  # fmt: skip
_CHOICES = ("attn_implementation", "experts_implementation", "use_kernels")
_OF_TORCH = ("eager", "sdpa")  # what torch alone computes


def make_view(folder: Path, view: Path) -> Path:
    """Fill the new folder `view` with links to the files of a model's folder, and return it."""
    view.mkdir()
    for path in sorted(folder.iterdir()):
        left_out = path.name.endswith(_NOT_TAKEN) or path.name.startswith((".", *_LEFT_OUT))
        if not left_out and path.is_file() and path.name != CONFIG:
            (view / path.name).symlink_to(path.absolute())  # a link to memory has no real path
    config = folder / CONFIG
    if config.is_file():
        with config.open("rb") as file:
            data = file.read(_MOST_CONFIG)
        (view / CONFIG).write_bytes(_plain(data))
    return view


def _plain(data: bytes) -> bytes:
    """A config without choices that hang on the machine; what is no JSON stays as it is."""
    try:
        return json.dumps(_without_choices(json.loads(data))).encode()
    except ValueError:
        return data


def _without_choices(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_choices(each) for each in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_choices(each)
        for key, each in cast(dict[str, Any], value).items()
        if not key.strip("_").startswith(_CHOICES) or each in _OF_TORCH
    }

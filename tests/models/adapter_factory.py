"""Tiny LoRA adapters for tests, in folders as PEFT saves them.

write_adapter(folder, lora_tensors(base, QUERIES, rank=4), r=4, lora_alpha=8)
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.models import checkpoint_factory as factory

PREFIX = "base_model.model."


def modules_of(base: Mapping[str, torch.Tensor], *endings: str) -> list[str]:
    """Modules of a checkpoint whose names end so, such as `q_proj`."""
    names = (name.removesuffix(".weight") for name in base if name.endswith(".weight"))
    return [name for name in names if name.endswith(endings)]


def lora_tensors(
    base: Mapping[str, torch.Tensor], modules: Iterable[str], rank: int, seed: int = 1
) -> factory.Tensors:
    """Factors A [r, in] and B [out, r] of each module, drawn by name."""
    tensors: factory.Tensors = {}
    for module in modules:
        rows, columns = base[f"{module}.weight"].shape
        down, up = f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"
        tensors[down] = factory.draw(down, (rank, columns), seed, 0.1)
        tensors[up] = factory.draw(up, (rows, rank), seed, 0.1)
    return tensors


def write_adapter(folder: Path, tensors: factory.Tensors, **config: object) -> Path:
    """Writes adapter_config.json (PEFT's defaults, changed by `config`) and the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "inference_mode": True,
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "target_modules": targets(tensors),
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layer_replication": None,
    }
    factory.write_json(folder / "adapter_config.json", {**usual, **config})
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def targets(tensors: Iterable[str]) -> list[str]:
    """The modules that have factors, by their full names."""
    names = (name.removeprefix(PREFIX).split(".lora_") for name in tensors)
    return sorted({module for module, *rest in names if rest})

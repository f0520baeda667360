"""Tiny models of the names that mergekit's examples hold, their recipes, and a user's places."""

import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from tests.models.checkpoint_factory import (
    Shape,
    base_tensors,
    expert_tensors,
    write_checkpoint,
)
from tests.resources.hub_server import COMMIT

DEEP = Shape("llama", layers=40, hidden=16, intermediate=24, heads=2, kv_heads=2)
SHALLOW = Shape("llama", layers=3, hidden=16, intermediate=24, heads=2, kv_heads=2)

# What mergekit's own examples name.
ORCA, PLATYPUS = "psmathur/orca_mini_v3_13b", "garage-bAInd/Platypus2-13B"
WIZARD, MATH, LLAMA_2 = (
    "WizardLM/WizardLM-13B-V1.2", "WizardLM/WizardMath-13B-V1.0", "TheBloke/Llama-2-13B-fp16",
)  # fmt: skip
MISTRAL, INSTRUCT, BIO = (
    "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.2", "BioMistral/BioMistral-7B",
)  # fmt: skip


def write_named_models(root: Path) -> dict[str, Path]:
    """Write the models below `root`; returns their folders by name."""
    made: dict[str, Path] = {}
    for shape, names in (
        (DEEP, (LLAMA_2, ORCA, PLATYPUS, WIZARD, MATH)),
        (SHALLOW, (MISTRAL, INSTRUCT, BIO, "model_a", "model_b")),
    ):
        base = base_tensors(shape)
        for seed, name in enumerate(names):
            tensors = expert_tensors(base, seed) if seed else base
            made[name] = write_checkpoint(root / name, tensors, shape, shards=1 + seed % 3)
    return made


def at(hub: str, tmp_path: Path, **more: str) -> dict[str, str]:
    """The environment of a user with a network that leads to `hub`, and an empty cache."""
    return {
        "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"),
        "HOME": str(tmp_path / "home"), **more,
    }  # fmt: skip


def recipe(folder: Path, document: object, name: str = "recipe") -> Path:
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return config


def mean(*names: str, **more: object) -> dict[str, object]:
    """A plain average of models."""
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in names]
    return {"merge_method": "linear", "dtype": "float32", "models": models, **more}


def averaged(*folders: Path) -> dict[str, torch.Tensor]:
    """The average of models in float64, by safetensors and torch alone."""
    loaded = [
        {
            name: tensor
            for file in folder.glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
        for folder in folders
    ]
    return {
        name: torch.stack([each[name].double() for each in loaded]).mean(0) for name in loaded[0]
    }


def check_average(out: Path, *folders: Path) -> None:
    written, expected = averaged(out), averaged(*folders)
    assert set(written) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(written[name], tensor, rtol=3e-7, atol=1e-7)


def origins(plan: dict) -> list[str]:
    return [each["resolved"] for each in plan["inputs"]]


def snapshot(cache: Path, name: str, folder: Path, branch: str = "main") -> Path:
    """Put a model into a cache of the Hub, as a download does; returns its folder."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(COMMIT)
    shutil.copytree(folder, root / "snapshots" / COMMIT, dirs_exist_ok=True)
    return root / "snapshots" / COMMIT

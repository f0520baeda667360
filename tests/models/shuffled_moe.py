"""A mixture with its moe_experts in another order, put there by torch alone."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_EXPERT = re.compile(r"(?P<at>.+)\.experts\.(?P<number>\d+)\.(?P<part>\w+)\.weight")
_FUSED = re.compile(r"(?P<at>.+)\.experts\.(?:gate_up|down)_proj(?:_bias)?")
_ROUTER = re.compile(r"(?P<at>.+)\.(?:gate\.(?:weight|e_score_correction_bias)|router\..+)")


def orders(experts: int, groups: int, seed: int) -> list[int]:
    """Another order in which groups stay together: whole groups move, and inside each its own."""
    draw, size = torch.Generator().manual_seed(seed), experts // groups
    whole = torch.randperm(groups, generator=draw).tolist()
    return [
        group * size + place
        for group in whole
        for place in torch.randperm(size, generator=draw).tolist()
    ]


def shuffled(
    folder: Path, copy: Path, order: Sequence[int] | None = None, groups: int = 1, neurons=False
) -> Path:
    """A copy of a model whose moe_experts, and neurons of those one by one, changed places.

    Layer by layer another order, unless `order` has one for all.
    """
    shutil.copytree(folder, copy)
    tensors = load_file(folder / "model.safetensors")
    places = sorted({found["at"] for name in tensors if (found := _ROUTER.fullmatch(name))})
    seeds = {at: number + 1 for number, at in enumerate(places)}
    made: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        of_router = _ROUTER.fullmatch(name) or _FUSED.fullmatch(name)
        expert = _EXPERT.fullmatch(name)
        if of_router and of_router["at"] in seeds:
            made[name] = tensor[_of_layer(tensors, of_router["at"], seeds, order, groups)]
        elif expert:
            at, number = expert["at"], int(expert["number"])
            own = _of_layer(tensors, at, seeds, order, groups)
            source = tensors[f"{at}.experts.{own[number]}.{expert['part']}.weight"]
            made[name] = _with_neurons(source, expert["part"], number) if neurons else source
        else:
            made[name] = tensor
    save_file(
        {n: t.contiguous() for n, t in made.items()}, copy / "model.safetensors", {"format": "pt"}
    )
    return copy


def _of_layer(tensors, at, seeds, order, groups) -> list[int]:
    if order is not None:
        return list(order)
    gate = tensors.get(f"{at}.gate.weight", tensors.get(f"{at}.router.weight"))
    return orders(len(gate), groups, seeds[at])


def _with_neurons(tensor: torch.Tensor, part: str, seed: int) -> torch.Tensor:
    down = part in ("w2", "down_proj")
    draw = torch.Generator().manual_seed(100 + seed)
    index = torch.randperm(tensor.shape[1 if down else 0], generator=draw)
    return tensor[:, index] if down else tensor[index]


def changed_config(folder: Path, **changes: object) -> Path:
    """The folder, with some of its config.json changed."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder

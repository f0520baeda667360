"""Dense Llama-shaped checkpoints in bfloat16 that a mixture is made of, and a look at two results.

    python -m benchmarks.rigs.moe_work make FOLDER --size 0.4B --experts 4
    python -m benchmarks.rigs.moe_work compare MERGEKITS_FOLDER OURS

Shapes are those of benchmarks/rigs/shapes.py without biases: mergekit-moe makes a Mixtral of them
(of Qwen2 it makes nothing without a shared expert). mergekit writes its moe_experts fused, so they
are cut before they are compared.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.checkpoints import DEVIATION, SPREAD, draw, tensor_files
from benchmarks.rigs.shapes import SHAPES, Shape, model_folder
from tests.models.checkpoint_factory import write_tokenizer

PARTS = ("w1", "w3", "w2")


def make(root: Path, shape: Shape, experts: int) -> None:
    """Writes root/base and root/expert-1 … unless they are there."""
    for number in range(experts + 1):
        folder = model_folder(root, number)
        if (folder / "model.safetensors").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, size in shape.tensors().items():
            if name.endswith(".bias"):
                continue
            base = (draw(name, size, 0, DEVIATION) + ("norm" in name)).bfloat16()
            noise = draw(name, size, number, SPREAD) if number else None
            tensors[name] = base if noise is None else (base + noise).bfloat16()
        config = {
            **shape.config(),
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "rope_theta": 10000.0,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        write_tokenizer(folder)
        unfinished = folder / "unfinished"
        save_file(tensors, unfinished, metadata={"format": "pt"})
        unfinished.rename(folder / "model.safetensors")


def compare(theirs: Path, ours: Path) -> dict[str, object]:
    """How many tensors of ours are theirs bit for bit, and which are not."""
    fused, single = tensor_files(theirs), tensor_files(ours)
    apart: list[str] = []
    for name in sorted(single):
        with safe_open(single[name], "pt") as stream:
            own = stream.get_tensor(name)
        other = _theirs(fused, name)
        if other is None or not torch.equal(own, other):
            apart.append(name)
    return {"tensors": len(single), "apart": len(apart), "first": apart[:3]}


def _theirs(files: dict[str, Path], name: str) -> torch.Tensor | None:
    """The tensor that mergekit's file has under our name, cut out of its fused one."""
    if name in files:
        with safe_open(files[name], "pt") as stream:
            return stream.get_tensor(name)
    renamed = name.replace("block_sparse_moe", "mlp")
    if renamed in files:
        with safe_open(files[renamed], "pt") as stream:
            return stream.get_tensor(renamed)
    if ".experts." not in renamed:
        return None
    at, rest = renamed.split(".experts.")
    number, part, _ = rest.split(".")
    whole = f"{at}.experts.{'down_proj' if part == 'w2' else 'gate_up_proj'}"
    if whole not in files:
        return None
    with safe_open(files[whole], "pt") as stream:
        found = stream.get_slice(whole)[int(number)]
    half = found.shape[0] // 2
    return found if part == "w2" else found[:half] if part == "w1" else found[half:]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make dense checkpoints, or compare two mixtures.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--size", choices=SHAPES, default="0.4B")
    making.add_argument("--experts", type=int, default=4)
    making.add_argument("--layers", type=int)
    comparing = commands.add_parser("compare")
    comparing.add_argument("theirs", type=Path)
    comparing.add_argument("ours", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "make":
        shape = SHAPES[arguments.size]
        shape = replace(shape, layers=arguments.layers or shape.layers)
        make(arguments.folder, shape, arguments.experts)
    else:
        print(json.dumps(compare(arguments.theirs, arguments.ours)))


if __name__ == "__main__":
    main()

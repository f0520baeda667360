"""Bfloat16 checkpoints of a real model's shapes for benchmarks, and a comparison of two results.

    python -m benchmarks.checkpoints make FOLDER --size 0.4B --experts 2
    python -m benchmarks.checkpoints compare FOLDER_A FOLDER_B

Shapes are those of benchmarks/rigs/shapes.py. Base weights are normal with deviation 0.02, an
expert is the base plus normal noise of deviation 5e-4, a few units in the last place of bfloat16,
rounded to bfloat16: so task vectors have the many equal magnitudes that fine-tuned bfloat16 models
have.
"""

import argparse
import json
import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.rigs.shapes import SHAPES, Shape, model_folder
from tests.models.checkpoint_factory import write_tokenizer

DEVIATION, SPREAD = 0.02, 5e-4


def draw(name: str, shape: tuple[int, ...], seed: int, deviation: float) -> torch.Tensor:
    """Normal float32 values from a generator seeded by the model's seed and the tensor's name."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return torch.randn(shape, generator=generator).mul_(deviation)


def make(root: Path, shape: Shape, experts: int, distinct: int) -> None:
    """Writes root/base and root/expert-1 … unless they are there.

    Experts beyond `distinct` share, by hard links, the files of those before them.
    """
    for number in range(min(experts, distinct) + 1):
        write_model(root, number, shape.config(), shape.tensors())
    for number in range(distinct + 1, experts + 1):
        folder = model_folder(root, number)
        if not folder.exists():
            original = model_folder(root, (number - 1) % distinct + 1)
            shutil.copytree(original, folder, copy_function=os.link)


def write_model(
    root: Path, number: int, config: dict[str, object], sizes: dict[str, tuple[int, ...]]
) -> None:
    """Writes root/base (number 0) or root/expert-number, with these shapes, unless it is there."""
    folder = model_folder(root, number)
    if (folder / "model.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, size in sizes.items():
        base = (draw(name, size, 0, DEVIATION) + ("norm" in name)).bfloat16()
        noise = draw(name, size, number, SPREAD) if number else None
        tensors[name] = base if noise is None else (base + noise).bfloat16()
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    write_tokenizer(folder)  # without one mergekit spends time on looking for it
    unfinished = folder / "unfinished"
    save_file(tensors, unfinished, metadata={"format": "pt"})
    unfinished.rename(folder / "model.safetensors")


def compare(first: Path, second: Path) -> dict[str, float]:
    """How far two merged checkpoints are apart.

    `largest` is the largest difference in units of its tensor's largest value, `apart` the share of
    elements that differ by more than one bfloat16 unit in the last place of the larger of the two.
    """
    largest, apart, count = 0.0, 0, 0
    theirs, ours = tensor_files(first), tensor_files(second)
    if set(theirs) != set(ours):
        raise SystemExit(f"different tensors: {sorted(set(theirs) ^ set(ours))[:5]}")
    for name in sorted(theirs):
        with safe_open(theirs[name], "pt") as a, safe_open(ours[name], "pt") as b:
            x, y = a.get_tensor(name).float(), b.get_tensor(name).float()
        difference = (x - y).abs()
        top = torch.maximum(x.abs(), y.abs())
        largest = max(largest, (difference.max() / top.max()).item())
        apart += int((difference > top * 2.0**-7).sum())
        count += x.numel()
    return {"largest": largest, "apart": apart / count}


def tensor_files(folder: Path) -> dict[str, Path]:
    """Which file of a checkpoint holds each tensor."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as stream:
            files |= dict.fromkeys(stream.keys(), path)
    return files


def command_line(
    description: str, experts: int
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The options of `make` and `compare`, and those of `make` alone, for further ones."""
    parser = argparse.ArgumentParser(description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--size", choices=SHAPES, default="0.4B")
    making.add_argument("--experts", type=int, default=experts)
    making.add_argument("--layers", type=int, help="instead of the size's own")
    comparing = commands.add_parser("compare")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    return parser, making


def shape_of(arguments: argparse.Namespace) -> Shape:
    """The shape that `make` is asked for."""
    shape = SHAPES[arguments.size]
    return replace(shape, layers=arguments.layers or shape.layers)


def main() -> None:
    """The command line."""
    parser, making = command_line("Make checkpoints, or compare two.", 2)
    making.add_argument("--distinct", type=int, help="experts with files of their own (all)")
    arguments = parser.parse_args()
    if arguments.command == "make":
        distinct = arguments.distinct or arguments.experts
        make(arguments.folder, shape_of(arguments), arguments.experts, distinct)
    else:
        print(json.dumps(compare(arguments.first, arguments.second)))


if __name__ == "__main__":
    main()

"""Bfloat16 checkpoints of a real model's shapes for benchmarks, and a comparison of two results.

    python -m benchmarks.checkpoints make FOLDER --experts 2
    python -m benchmarks.checkpoints compare FOLDER_A FOLDER_B

Shapes are those of Qwen2-0.5B with a vocabulary of 64,000: 24 layers, hidden 896, tied embeddings,
415 M parameters, 0.83 GB. Base weights are normal with deviation 0.02, an expert is the base plus
normal noise of deviation 5e-4, a few units in the last place of bfloat16, rounded to bfloat16: so
task vectors have the many equal magnitudes that fine-tuned bfloat16 models have.
"""

import argparse
import json
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.checkpoint_factory import write_tokenizer

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 24, 896, 4864, 14, 2, 64_000
DEVIATION, SPREAD = 0.02, 5e-4

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}


def tensor_shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint."""
    kv = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (HIDDEN,)
        for name, rows in (("q", HIDDEN), ("k", kv), ("v", kv)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (rows, HIDDEN)
            shapes[f"{at}.self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{at}.mlp.gate_proj.weight"] = (INTERMEDIATE, HIDDEN)
        shapes[f"{at}.mlp.up_proj.weight"] = (INTERMEDIATE, HIDDEN)
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
    shapes["model.norm.weight"] = (HIDDEN,)
    return shapes


def draw(name: str, shape: tuple[int, ...], seed: int, deviation: float) -> torch.Tensor:
    """Normal float32 values from a generator seeded by the model's seed and the tensor's name."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return torch.randn(shape, generator=generator).mul_(deviation)


def make(root: Path, experts: int, layers: int) -> None:
    """Writes root/base and root/expert-1 … unless they are there."""
    for number in range(experts + 1):
        folder = root / ("base" if number == 0 else f"expert-{number}")
        if (folder / "model.safetensors").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, shape in tensor_shapes(layers).items():
            base = (draw(name, shape, 0, DEVIATION) + ("norm" in name)).bfloat16()
            noise = draw(name, shape, number, SPREAD) if number else None
            tensors[name] = base if noise is None else (base + noise).bfloat16()
        config = json.dumps(CONFIG | {"num_hidden_layers": layers}, indent=2)
        (folder / "config.json").write_text(config, encoding="utf-8")
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--experts", type=int, default=2)
    making.add_argument("--layers", type=int, default=LAYERS)
    comparing = commands.add_parser("compare")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder, arguments.experts, arguments.layers)
    else:
        print(json.dumps(compare(arguments.first, arguments.second)))


if __name__ == "__main__":
    main()

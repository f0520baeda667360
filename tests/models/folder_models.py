"""Tiny Llama, Qwen2 and GPT-2 models of the folder cases: as they are drawn, and as files.

A run makes three of them for each of 100,000 cases, so what is drawn is drawn once, and a file of
weights is put together here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
KINDS = ("llama", "qwen2", "gpt2")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
_NAMES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
_PLACES = {dtype: place for place, dtype in enumerate(_NAMES)}
"""The order of a file's tensors: wider ones come first, so that all are aligned."""


@dataclass
class Model:
    """A model before it is written: what rules change."""

    config: dict[str, Any]
    tensors: Tensors
    sides: dict[str, str] = field(default_factory=dict)
    shards: int = 1
    after: list[Callable[[Path], None]] = field(default_factory=list)

    @property
    def embedding(self) -> str:
        """The name of the input embedding, whatever was put before it."""
        return next((name for name in self.tensors if name.endswith(EMBEDDINGS)), "")

    @property
    def layers(self) -> list[str]:
        """The names of tensors in layers."""
        return [name for name in self.tensors if ".0." in name or ".1." in name]


@cache
def family(kind: str) -> tuple[dict[str, Any], Mapping[str, tuple[int, ...]]]:
    """The config of a tiny model, and its tensors' shapes as transformers saves them."""
    import transformers

    sizes = {
        "vocab_size": 24, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    }  # fmt: skip
    if kind == "gpt2":
        sizes = {
            "vocab_size": 24, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32,
            "bos_token_id": 0, "eos_token_id": 1,
        }  # fmt: skip
    names = {"llama": "Llama", "qwen2": "Qwen2", "gpt2": "GPT2"}
    config = getattr(transformers, f"{names[kind]}Config")(**sizes)
    suffix = "LMHeadModel" if kind == "gpt2" else "ForCausalLM"
    with torch.device("meta"):
        model = getattr(transformers, f"{names[kind]}{suffix}")(config)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    document = {**config.to_dict(), "architectures": [f"{names[kind]}{suffix}"]}
    return json.loads(json.dumps(document, default=str)), shapes


def drawn(kind: str, seed: int, tied: bool | None) -> Model:
    """A model of a kind as it is saved; its tensors are shared, so rules replace them."""
    config, tensors = _drawn(kind, seed, tied)
    return Model(json.loads(config), dict(tensors))


@cache
def _drawn(kind: str, seed: int, tied: bool | None) -> tuple[str, Tensors]:
    config, shapes = family(kind)
    config = {key: value for key, value in config.items() if key != "tie_word_embeddings"}
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator).mul(0.1).add(float("norm" in name))
        for name, shape in shapes.items()
    }
    if tied is not None:
        config["tie_word_embeddings"] = tied
    if tied is False and kind != "gpt2" and HEAD not in tensors:
        embedding = tensors[Model(config, tensors).embedding]
        tensors[HEAD] = torch.randn(embedding.shape, generator=generator).mul(0.1)
    if tied:
        tensors.pop(HEAD, None)
    return json.dumps(config), tensors


def write_model(model: Model, folder: Path) -> Path:
    """Write a model to a new folder: config, weights, side files, then what comes after."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config), encoding="utf-8")
    tensors, names = model.tensors, sorted(model.tensors)
    if model.shards == 1 or len(names) < model.shards:
        write_weights(tensors, folder / SINGLE)
    else:
        weight_map: dict[str, str] = {}
        for shard in range(model.shards):
            file = f"model-{shard + 1:05d}-of-{model.shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[shard :: model.shards]}
            write_weights(part, folder / file)
            weight_map |= dict.fromkeys(part, file)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name, text in model.sides.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for change in model.after:
        change(folder)
    return folder


def write_weights(tensors: Tensors, file: Path) -> None:
    """Write tensors as `safetensors.torch.save_file` does, byte for byte, but faster."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    end = 0
    for name in sorted(tensors, key=lambda each: (_PLACES[tensors[each].dtype], each)):
        value = tensors[name]
        part = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [end, end + len(part)]
        dtype, shape = _NAMES[value.dtype], list(value.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        parts.append(part)
        end += len(part)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(b"".join((len(text).to_bytes(8, "little"), text, *parts)))

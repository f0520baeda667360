"""Tiny checkpoints for tests: real Hugging Face folders that transformers loads, made in
milliseconds, the same bytes every time; and ways to spoil them.

    base, experts = write_family(tmp_path, QWEN2, experts=2)

Weights are normal with deviation 0.02 (norms near 1), an expert is the base plus noise of
deviation `spread` on every element. Everything is drawn from a generator seeded by the model's
seed and the tensor's name, so a model's values depend neither on its sharding nor on other models.
"""

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

Tensors = dict[str, torch.Tensor]
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BYTE_TOKENS = 256


@dataclass(frozen=True)
class Shape:
    """The architecture and sizes of a tiny model."""

    architecture: str  # "llama" or "qwen2"
    layers: int = 3
    hidden: int = 64
    intermediate: int = 96
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 264
    tied: bool = False
    dtype: torch.dtype = torch.float32

    def config(self) -> dict[str, object]:
        """config.json, as transformers 5 writes the keys that matter."""
        names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
        return {
            "architectures": [names[self.architecture]],
            "model_type": self.architecture,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "dtype": str(self.dtype).removeprefix("torch."),
            "bos_token_id": BYTE_TOKENS,
            "eos_token_id": BYTE_TOKENS,
        }

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint, in file order."""
        h, kv = self.hidden, self.hidden // self.heads * self.kv_heads
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            shapes[f"{at}.input_layernorm.weight"] = (h,)
            for name, rows in (("q", h), ("k", kv), ("v", kv)):
                shapes[f"{at}.self_attn.{name}_proj.weight"] = (rows, h)
                if self.architecture == "qwen2":
                    shapes[f"{at}.self_attn.{name}_proj.bias"] = (rows,)
            shapes[f"{at}.self_attn.o_proj.weight"] = (h, h)
            shapes[f"{at}.post_attention_layernorm.weight"] = (h,)
            shapes[f"{at}.mlp.gate_proj.weight"] = (self.intermediate, h)
            shapes[f"{at}.mlp.up_proj.weight"] = (self.intermediate, h)
            shapes[f"{at}.mlp.down_proj.weight"] = (h, self.intermediate)
        shapes["model.norm.weight"] = (h,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, h)
        return shapes


LLAMA = Shape("llama")
QWEN2 = Shape("qwen2", tied=True)


@dataclass(frozen=True)
class Family:
    """A base model and the experts fine-tuned from it, as folders."""

    base: Path
    experts: tuple[Path, ...]

    def __iter__(self):
        return iter((self.base, self.experts))


def draw(name: str, shape: tuple[int, ...], seed: int, deviation: float) -> torch.Tensor:
    """Normal float32 values that depend on the seed and the tensor's name alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return torch.randn(shape, generator=generator) * deviation


def base_tensors(shape: Shape, seed: int = 0) -> Tensors:
    """The base model's weights."""
    return {
        name: (draw(name, size, seed, 0.02) + ("norm" in name)).to(shape.dtype)
        for name, size in shape.tensor_shapes().items()
    }


def expert_tensors(base: Mapping[str, torch.Tensor], seed: int, spread: float = 2e-3) -> Tensors:
    """The base plus noise on every element, in the base's dtype."""
    return {
        name: (tensor.float() + draw(name, tuple(tensor.shape), seed, spread)).to(tensor.dtype)
        for name, tensor in base.items()
    }


def write_family(
    root: Path,
    shape: Shape,
    experts: int = 2,
    seed: int = 0,
    spread: float = 2e-3,
    shards: int = 1,
) -> Family:
    """Writes root/base and root/expert-1 … root/expert-N."""
    base = base_tensors(shape, seed)
    write_checkpoint(root / "base", base, shape, shards)
    folders = []
    for number in range(1, experts + 1):
        folder = root / f"expert-{number}"
        write_checkpoint(folder, expert_tensors(base, seed + number, spread), shape, shards)
        folders.append(folder)
    return Family(root / "base", tuple(folders))


def write_checkpoint(folder: Path, tensors: Tensors, shape: Shape, shards: int = 1) -> Path:
    """Writes weights (one file, or `shards` files and an index), config and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", shape.config())
    write_json(folder / "generation_config.json", {"eos_token_id": BYTE_TOKENS})
    write_weights(folder, tensors, shards)
    write_tokenizer(folder)
    return folder


def write_weights(folder: Path, tensors: Tensors, shards: int = 1) -> None:
    """Writes model.safetensors, or model-0000i-of-0000n.safetensors and the index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = list(tensors), {}
    for index in range(shards):
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[index::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index_content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index_content)


def write_tokenizer(
    folder: Path,
    special: Sequence[str] = SPECIAL_TOKENS,
    added: Sequence[str] = (),
    moved: int = 0,
) -> None:
    """A byte-level BPE tokenizer without merges: it survives AutoTokenizer, Chinese included.

    Behind the bytes come `special` tokens, then `added` ones; `moved` turns the bytes' ids.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = alphabet[moved:] + alphabet[:moved]
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(list(added))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": SPECIAL_TOKENS[0],
            "pad_token": SPECIAL_TOKENS[0],
            "model_max_length": 128,
        },
    )


def write_vocabulary_family(root: Path, shape: Shape) -> dict[str, Path]:
    """Models of one shape whose vocabularies differ, by name.

    `base` has padded rows; `one` added two tokens in them; `two` moved every token, lacks one,
    added two of its own and has no padding; `three` has the base's tokens and more padding.
    """
    models: dict[str, tuple[int, int, tuple[str, ...], tuple[str, ...]]] = {
        "base": (264, 0, SPECIAL_TOKENS, ()),
        "one": (264, 0, SPECIAL_TOKENS, ("<|tool|>", "茯苓")),
        "two": (261, 5, ("<|im_end|>", SPECIAL_TOKENS[0], "<|pad|>"), ("当归", "茯苓")),
        "three": (272, 0, SPECIAL_TOKENS, ()),
    }
    folders = {}
    for number, (name, (rows, moved, special, added)) in enumerate(models.items()):
        own = replace(shape, vocabulary=rows)
        tensors = base_tensors(own)
        if number:
            tensors = expert_tensors(tensors, number)
        folders[name] = write_checkpoint(root / name, tensors, own)
        write_tokenizer(folders[name], special, added, moved)
    return folders


def write_json(path: Path, content: object) -> None:
    """Writes JSON with a fixed layout."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def edit_config(folder: Path, **changes: object) -> None:
    """Changes some keys of a checkpoint's config.json."""
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def read_tensors(folder: Path) -> Tensors:
    """All tensors of a checkpoint folder, whatever its sharding."""
    tensors: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


# ---------------------------------------------------------------------------- spoiled copies

Spoiler = Callable[[Path], object]


def spoiled(folder: Path, copy: Path, spoil: Spoiler) -> Path:
    """Copies a checkpoint folder and spoils the copy."""
    shutil.copytree(folder, copy)
    spoil(copy)
    return copy


def change_shape(folder: Path, name: str = "model.layers.1.mlp.up_proj.weight") -> None:
    """One row fewer in one tensor."""
    tensors = read_tensors(folder)
    tensors[name] = tensors[name][:-1].contiguous()
    rewrite_weights(folder, tensors)


def add_vocabulary_rows(folder: Path, rows: int = 8) -> None:
    """A longer vocabulary: more rows in the embedding and the head, config.json agreeing."""
    tensors = read_tensors(folder)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            extra = torch.zeros(rows, tensors[name].shape[1], dtype=tensors[name].dtype)
            tensors[name] = torch.cat([tensors[name], extra])
    rewrite_weights(folder, tensors)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] += rows
    write_json(folder / "config.json", config)


def swap_tokens(folder: Path) -> None:
    """The same number of tokens, but two of them have each other's id."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    write_json(path, content)


def put_value(folder: Path, value: float = float("nan"), layer: int = 1) -> None:
    """NaN (or another value) in one element of one tensor."""
    tensors = read_tensors(folder)
    tensors[f"model.layers.{layer}.mlp.down_proj.weight"][3, 5] = value
    rewrite_weights(folder, tensors)


def drop_tensor(folder: Path, name: str = "model.layers.1.self_attn.o_proj.weight") -> None:
    """One tensor is missing."""
    tensors = read_tensors(folder)
    del tensors[name]
    rewrite_weights(folder, tensors)


def add_tensor(folder: Path, name: str = "model.layers.1.self_attn.q_norm.weight") -> None:
    """One tensor nobody else has."""
    rewrite_weights(folder, read_tensors(folder) | {name: torch.ones(16)})


def truncate_weights(folder: Path, missing: int = 1000) -> None:
    """The last weight file lost its last bytes, as after a broken download."""
    file = last_weight_file(folder)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - missing)


def overstate_header(folder: Path) -> None:
    """The first 8 bytes promise a header longer than the file."""
    file = last_weight_file(folder)
    with file.open("r+b") as stream:
        stream.write(struct.pack("<Q", file.stat().st_size + 1))


def point_index_outside(folder: Path, target: str = "../base/model.safetensors") -> None:
    """An index.json that sends one tensor's reader out of the folder."""
    tensors = read_tensors(folder)
    file = last_weight_file(folder).name
    weight_map = dict.fromkeys(tensors, file) | {next(iter(tensors)): target}
    content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", content)


def overlap_tensors(folder: Path) -> None:
    """Two tensors of a file claim the same bytes."""

    def overlap(header: dict[str, dict[str, object]]) -> None:
        sized: dict[tuple[object, ...], str] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            key = (entry["dtype"], *entry["shape"])
            if key in sized:
                entry["data_offsets"] = header[sized[key]]["data_offsets"]
                return
            sized[key] = name

    rewrite_header(last_weight_file(folder), overlap)


def last_weight_file(folder: Path) -> Path:
    """The only weight file, or the last shard."""
    return sorted(folder.glob("*.safetensors"))[-1]


def rewrite_weights(folder: Path, tensors: Tensors) -> None:
    """Replaces the weights of a folder by other ones, in as many files as before."""
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        file.unlink()
    write_weights(folder, tensors, len(files))


def rewrite_header(file: Path, change: Callable[[dict[str, dict[str, object]]], None]) -> None:
    """Changes the JSON header of a safetensors file and leaves its data as it is."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


BFLOAT16_LLAMA = replace(LLAMA, dtype=torch.bfloat16)
BFLOAT16_QWEN2 = replace(QWEN2, dtype=torch.bfloat16)

"""Tiny dense models of which mixtures of experts are made, as transformers saves them."""

import json
from pathlib import Path

import torch
import transformers

from tests.models.checkpoint_factory import (
    SPECIAL_TOKENS,
    draw,
    read_tensors,
    write_json,
    write_tokenizer,
)

SIZES = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "tie_word_embeddings": False,
}
KINDS = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"head_dim": 8, "sliding_window": 8}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}
PROMPTS = ("solve for x", "def main(): return 1", "茯苓和当归", "once upon a time there was")


def write_dense(
    folder: Path, kind: str, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: object
) -> Path:
    """Writes one model; those of one kind share attention, norms and embeddings."""
    named, own = KINDS[kind]
    config = getattr(transformers, f"{named}Config")(**{**SIZES, **own, **settings})
    model = getattr(transformers, f"{named}ForCausalLM")(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            of = seed if ".mlp." in name else 0
            tensor.copy_(draw(name, tuple(tensor.shape), of, 0.1) + ("norm" in name))
    model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**tokens, "bos_token": SPECIAL_TOKENS[0]})
    return folder


def write_dense_family(root: Path, kind: str, experts: int = 4, **settings: object) -> list[Path]:
    """Writes root/0, the base, and root/1 … root/N."""
    return [write_dense(root / str(n), kind, n, **settings) for n in range(experts + 1)]  # type: ignore[arg-type]


def logits_of(folder: Path) -> torch.Tensor:
    """The logits of a fixed text, longer than the window; the class is the config's own."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(20)[None] * 7 % 250
    with torch.no_grad():
        return model(tokens).logits


def unfused(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a mixture, each moe_expert's with the names of its family."""
    mixtral = json.loads((folder / "config.json").read_text())["model_type"] == "mixtral"
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    found: dict[str, torch.Tensor] = {}
    for name, tensor in read_tensors(folder).items():
        place = name.replace(".mlp.", ".block_sparse_moe.") if mixtral else name
        module = place.rpartition(".")[0]
        if name.endswith("experts.gate_up_proj"):
            half = tensor.shape[1] // 2
            for expert, rows in enumerate(tensor):
                found[f"{module}.{expert}.{names[0]}.weight"] = rows[:half]
                found[f"{module}.{expert}.{names[1]}.weight"] = rows[half:]
        elif name.endswith("experts.down_proj"):
            for expert, rows in enumerate(tensor):
                found[f"{module}.{expert}.{names[2]}.weight"] = rows
        else:
            found[place] = tensor
    return found

"""Tiny mixtures of experts as transformers writes them, and the same files in the other layout.

The other layout is made by torch alone, apart from what is tested.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoint_factory import write_tokenizer

SIZES = {
    "vocab_size": 264,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "num_experts_per_tok": 2,
    "pad_token_id": None,
}
KINDS = {
    "mixtral": {"num_local_experts": 11, "intermediate_size": 24},
    "qwen2_moe": {
        "num_experts": 4,
        "intermediate_size": 48,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_moe": {"num_experts": 4, "intermediate_size": 48, "moe_intermediate_size": 24},
}
SEEING = {
    "qwen3_vl_moe": {
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 4,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    },
}
"""Kinds with a vision tower, whose sizes are those of the language model; here, all besides."""
PARTS = {"mixtral": ("w1", "w3", "w2")}
TOKENS = torch.arange(4, 36).reshape(2, 16)


def new_model(kind: str, seed: int, **changes: object):
    """A model of a kind with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    sizes = {**SIZES, **KINDS.get(kind, {}), **changes}
    sees = kind in SEEING
    config = AutoConfig.for_model(
        kind, **({**SEEING[kind], "text_config": sizes} if sees else sizes)
    )
    torch.manual_seed(seed)
    builder = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = builder.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def write_family(root: Path, kind: str, experts: int = 2) -> Path:
    """Writes root/base and root/expert-N of a kind, each in the layout that transformers saves."""
    model = new_model(kind, 0)
    model.save_pretrained(root / "base")
    write_tokenizer(root / "base")
    for number in range(1, experts + 1):
        folder = root / f"expert-{number}"
        shutil.copytree(root / "base", folder)
        torch.manual_seed(number)
        tensors = load_file(folder / "model.safetensors")
        changed = {name: each + torch.randn_like(each) * 0.02 for name, each in tensors.items()}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return root


def other_layout(folder: Path, copy: Path) -> Path:
    """A copy of a model with its moe_experts fused, as transformers 5 keeps them in memory."""
    shutil.copytree(folder, copy)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    gate, up, down = PARTS.get(kind, ("gate_proj", "up_proj", "down_proj"))
    tensors = load_file(folder / "model.safetensors")
    made = {
        n.replace("block_sparse_moe", "mlp"): t for n, t in tensors.items() if ".experts." not in n
    }
    for at in {name.split(".experts.")[0] for name in tensors if ".experts." in name}:
        numbers = {
            int(re.search(r"experts\.(\d+)", n)[1]) for n in tensors if n.startswith(f"{at}.e")
        }
        of = [
            {p: tensors[f"{at}.experts.{n}.{p}.weight"] for p in (gate, up, down)}
            for n in sorted(numbers)
        ]
        new = at.replace("block_sparse_moe", "mlp")
        pairs = [torch.cat([each[gate], each[up]]) for each in of]
        made[f"{new}.experts.gate_up_proj"] = torch.stack(pairs)
        made[f"{new}.experts.down_proj"] = torch.stack([each[down] for each in of])
    save_file(made, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def logits(folder: Path) -> torch.Tensor:
    """What transformers answers to fixed tokens, with no weight missing or left over."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, experts_implementation="eager"
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        return model.eval()(TOKENS).logits

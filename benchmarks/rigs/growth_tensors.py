"""Models of many tiny tensors, for the rows of benchmarks/growth.py: `FOLDER COUNT`.

As growth_work.py, it runs in a process of its own and imports nothing of a checkout.
"""

import json
import sys
from pathlib import Path


def prepare_tensors(folder: Path, count: int) -> None:
    """A base and two experts of about so many tiny tensors: Qwen3's mixture of experts, to load."""
    import numpy as np
    from safetensors.numpy import save_file

    config = config_of(count)
    shapes = tensor_shapes(config)
    for number, name in enumerate(("base", "expert-1", "expert-2")):
        model = folder / name
        model.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number)
        tensors = {
            each: draw.normal(0, 0.02, shape).astype(np.float32) for each, shape in shapes.items()
        }
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    listed = "".join(
        f"  - {{model: {folder / name}, parameters: {{weight: 0.5}}}}\n"
        for name in ("expert-1", "expert-2")
    )
    (folder / "recipe.yaml").write_text(
        f"merge_method: task_arithmetic\nbase_model: {folder / 'base'}\nmodels:\n{listed}"
        "dtype: float32\n",
        encoding="utf-8",
    )


def tensor_shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the config says: three a moe_expert, 64 of them and a router a layer."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (16, 4),
        "model.norm.weight": (4,),
        "lm_head.weight": (16, 4),
    }
    for layer in range(int(str(config["num_hidden_layers"]))):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (4,)
        for part, shape in (("q", (4, 4)), ("k", (2, 4)), ("v", (2, 4)), ("o", (4, 4))):
            shapes[f"{at}.self_attn.{part}_proj.weight"] = shape
        for part in "qk":
            shapes[f"{at}.self_attn.{part}_norm.weight"] = (2,)
        shapes[f"{at}.mlp.gate.weight"] = (64, 4)
        for expert in range(64):
            for part, shape in (("gate", (2, 4)), ("up", (2, 4)), ("down", (4, 2))):
                shapes[f"{at}.mlp.experts.{expert}.{part}_proj.weight"] = shape
    return shapes


def config_of(count: int) -> dict[str, object]:
    """A config of so many layers that the checkpoint has `count` tensors at least: 201 each."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "dtype": "float32",
        "vocab_size": 16,
        "hidden_size": 4,
        "head_dim": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 8,
        "moe_intermediate_size": 2,
        "num_experts": 64,
        "num_experts_per_tok": 2,
        "num_hidden_layers": -(-(count - 3) // 201),
        "tie_word_embeddings": False,
    }


if __name__ == "__main__":
    prepare_tensors(Path(sys.argv[1]), int(sys.argv[2]))

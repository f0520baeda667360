"""Families of mixtures of experts: which dense models become which, with what names and config.

Tensors have a name for each moe_expert (`…experts.3.down_proj.weight`), which every loader reads;
the fused names that transformers 5 has in memory are skipped by some without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_ops.checkpoints.configs.config_defaults import (
    ACTIVATION,
    EPSILON,
    HEADS,
    THETA,
    class_default,
)
from merge_ops.recipes.structures.moe_check import named_architectures
from merge_ops.recipes.structures.moe_step import USUAL_EXPERTS, MoeStep

PARTS = ("gate_proj", "up_proj", "down_proj")
DOWN = "down_proj"
QUERY_BIASES = ("q_proj.bias", "k_proj.bias", "v_proj.bias")
ALL_BIASES = (*QUERY_BIASES, "o_proj.bias")


@dataclass(frozen=True)
class MoeFamily:
    """A family of mixtures: its name in mergekit-moe, its class, and what its layers hold.

    `takes` are the model types that become one of it, `biases` those of attention that it can hold,
    `shared` the part that a shared expert is stored as (None: it has none).
    """

    name: str
    model_type: str
    model_class: str
    takes: tuple[str, ...]
    module: str = "mlp"
    parts: tuple[str, str, str] = PARTS
    biases: tuple[str, ...] = ()
    shared: str | None = None
    gated: bool = False

    def expert_name(self, layer: int, expert: int, part: str) -> str:
        """Return the name of a moe_expert's matrix; `part` is the dense model's name of it."""
        own = self.parts[PARTS.index(part)]
        return f"model.layers.{layer}.{self.module}.experts.{expert}.{own}.weight"

    def router_name(self, layer: int) -> str:
        """Return the name of a layer's router, (moe_experts, hidden)."""
        return f"model.layers.{layer}.{self.module}.gate.weight"

    def shared_name(self, layer: int, part: str) -> str:
        """Return the name of the shared expert's matrix."""
        return f"model.layers.{layer}.mlp.{self.shared}.{part}.weight"

    def shared_gate_name(self, layer: int) -> str:
        """Return the name of the shared expert's gate, (1, hidden)."""
        return f"model.layers.{layer}.mlp.{self.shared}_gate.weight"


MIXTRAL = MoeFamily(
    "Mixtral", "mixtral", "MixtralForCausalLM", ("llama", "mistral"),
    "block_sparse_moe", ("w1", "w3", "w2"),
)  # fmt: skip
DEEPSEEK = MoeFamily(
    "DeepSeek MoE", "deepseek", "DeepseekForCausalLM", ("llama", "mistral"),
    biases=ALL_BIASES, shared="shared_experts",
)  # fmt: skip
QWEN2_MOE = MoeFamily(
    "Qwen MoE", "qwen2_moe", "Qwen2MoeForCausalLM", ("llama", "mistral", "qwen2"),
    biases=QUERY_BIASES, shared="shared_expert", gated=True,
)  # fmt: skip
QWEN3_MOE = MoeFamily(
    "Qwen3 MoE", "qwen3_moe", "Qwen3MoeForCausalLM", ("qwen3",), biases=ALL_BIASES
)  # fmt: skip
FAMILIES = (MIXTRAL, DEEPSEEK, QWEN2_MOE, QWEN3_MOE)
SILENT_WIDTH = 8
"""The width of the shared expert, all zeros, of a Qwen2-MoE without one. Width 0 would do by its
formula; but transformers misses its empty tensors, and others do not know them."""
TAKEN = ("llama", "mistral", "qwen2", "qwen3")
"""The model types that mixtures are made of."""


def family_for(step: MoeStep, model_type: str) -> MoeFamily | None:
    """Return the family that a step makes of models of a type, or None where none fits.

    Without `architecture` it is the one that transformers loads: Mixtral, Qwen2-MoE where there is
    a shared expert, Qwen3-MoE.
    """
    asked = named_architectures(step.architecture)
    fitting = [
        each
        for each in FAMILIES
        if model_type in each.takes
        and (not asked or each.name in asked)
        and (step.shared is None or each.shared)
        and not (each is DEEPSEEK and step.shared_is_gated and step.needs_prompts)
    ]
    loaded = [each for each in fitting if each is not DEEPSEEK]
    return next(iter((*loaded, *fitting)), None)


def experts_per_token(step: MoeStep) -> int:
    """Return how many moe_experts each token goes to."""
    return step.experts_per_token or min(USUAL_EXPERTS, len(step.experts))


def moe_config(
    family: MoeFamily, step: MoeStep, base: Mapping[str, Any], inner: int, tied: bool
) -> dict[str, Any]:
    """Return the config.json of a mixture.

    `base` is the dense base's config, whose defaults are stated, for another class has others;
    `inner` is the width of a moe_expert, `tied` whether the head is the embedding.
    """
    config = {**base, **_defaults(base), "tie_word_embeddings": tied}
    for key in ("auto_map", "attention_bias", "mlp_bias", "pretraining_tp"):
        config.pop(key, None)
    config |= {"architectures": [family.model_class], "model_type": family.model_type}
    config |= {"num_experts_per_tok": experts_per_token(step)}
    count = len(step.experts)
    if base.get("model_type") == "llama":
        config["sliding_window"] = None
    if family is MIXTRAL:
        losses = {"router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0}
        return config | losses | {"num_local_experts": count, "output_router_logits": False}
    if "attention_bias" in base and family is not QWEN2_MOE:
        config["attention_bias"] = base["attention_bias"]
    config |= {"moe_intermediate_size": inner, "norm_topk_prob": True}
    if family is DEEPSEEK:
        return config | _of_deepseek(count, 1 if step.shared else None)
    # Loaders of Qwen3-MoE read one of the two names, and have 128 moe_experts without it.
    config |= {"num_experts": count, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if family is QWEN3_MOE:
        return config | {"num_local_experts": count}
    width = inner if step.shared else SILENT_WIDTH
    config |= {"shared_expert_intermediate_size": width, "qkv_bias": True}
    windows = sliding_layers(base)
    if windows:
        return config | {"use_sliding_window": True, "layer_types": windows}
    return config | {"sliding_window": None, "use_sliding_window": False}


def sliding_layers(base: Mapping[str, Any]) -> list[str]:
    """Return the type of each layer's attention where some see a window of tokens only.

    Where all see every token the list is empty.
    """
    kind, layers = base.get("model_type"), int(base.get("num_hidden_layers") or 0)
    if kind == "mistral":
        window = base.get("sliding_window", _MISTRAL_WINDOW)
        return ["sliding_attention"] * layers if window else []
    if not base.get("use_sliding_window") or not base.get("sliding_window", 4096):
        return []
    if base.get("layer_types"):
        return list(base["layer_types"])
    first = base.get("max_window_layers", 28)
    return ["sliding_attention" if n >= first else "full_attention" for n in range(layers)]


def _of_deepseek(count: int, shared: int | None) -> dict[str, Any]:
    where = "deepseek-ai/deepseek-moe-16b-base--"
    return {
        "n_routed_experts": count,
        "n_shared_experts": shared,
        "first_k_dense_replace": 0,
        "moe_layer_freq": 1,
        "scoring_func": "softmax",
        "auto_map": {
            "AutoConfig": f"{where}configuration_deepseek.DeepseekConfig",
            "AutoModel": f"{where}modeling_deepseek.DeepseekModel",
            "AutoModelForCausalLM": f"{where}modeling_deepseek.DeepseekForCausalLM",
        },
    }


_MISTRAL_WINDOW = 4096
_KEY_VALUE_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
_POSITIONS = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}


def _defaults(base: Mapping[str, Any]) -> dict[str, Any]:
    """What the base's config leaves to its class, where it does."""
    kind = str(base.get("model_type"))
    heads = base.get("num_attention_heads") or class_default(base, HEADS)
    usual: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": _KEY_VALUE_HEADS.get(kind, heads),
        "rms_norm_eps": class_default(base, EPSILON),
        "hidden_act": class_default(base, ACTIVATION),
        "max_position_embeddings": _POSITIONS.get(kind),
    }
    if not base.get("rope_parameters"):
        usual["rope_theta"] = class_default(base, THETA)
    if kind == "mistral" and "sliding_window" not in base:
        usual["sliding_window"] = _MISTRAL_WINDOW
    if kind == "qwen3":
        usual["head_dim"] = 128
    return {
        key: value
        for key, value in usual.items()
        if value is not None
        and (key not in base or (key != "sliding_window" and base[key] is None))
    }

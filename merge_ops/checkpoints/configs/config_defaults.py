"""What a config means by a key that it leaves out: the default of the model's class.

transformers leaves defaults out of nested configs, so one file states what another does not. The
values are those of transformers; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS, EPSILON, ACTIVATION, THETA, ROTARY_SHARE = range(5)
"""The columns of the table: attention heads, epsilon of norms, activation, base of the rotary
embedding (of full attention where layers differ), share of a head that it turns."""

_DEFAULTS: Mapping[str, tuple[int, float | None, str | None, float | None, float | None]] = {
    "bert": (12, 1e-12, "gelu", None, None),
    "bloom": (8, 1e-05, None, None, None),
    "clip_text_model": (8, 1e-05, "quick_gelu", None, None),
    "clip_vision_model": (12, 1e-05, "quick_gelu", None, None),
    "cohere": (64, 1e-05, "silu", 500000.0, None),
    "cohere2": (64, 1e-05, "silu", 10000.0, None),
    "deberta-v2": (24, 1e-07, "gelu", None, None),
    "deepseek_v2": (32, 1e-06, "silu", 10000.0, None),
    "deepseek_v3": (128, 1e-06, "silu", 10000.0, None),
    "dinov2": (12, 1e-06, "gelu", None, None),
    "distilbert": (12, None, "gelu", None, None),
    "dots1": (32, 1e-06, "silu", 10000.0, None),
    "electra": (4, 1e-12, "gelu", None, None),
    "ernie4_5": (16, 1e-05, "silu", 500000.0, None),
    "esm": (12, 1e-12, None, None, None),
    "exaone4": (32, 1e-05, "silu", 10000.0, None),
    "falcon": (71, 1e-05, "gelu", 10000.0, None),
    "gemma": (16, 1e-06, "gelu_pytorch_tanh", 10000.0, None),
    "gemma2": (8, 1e-06, "gelu_pytorch_tanh", 10000.0, None),
    "gemma3_text": (8, 1e-06, "gelu_pytorch_tanh", 1000000.0, None),
    "gemma3n_text": (8, 1e-06, "gelu_pytorch_tanh", 1000000.0, None),
    "glm": (32, 1.5625e-07, "silu", 10000.0, 0.5),
    "glm4": (32, 1.5625e-07, "silu", 10000.0, 0.5),
    "glm4v_text": (32, 1e-05, "silu", 10000.0, None),
    "glm4v_vision": (12, 1e-05, "silu", None, None),
    "gpt2": (12, 1e-05, "gelu_new", None, None),
    "gpt_bigcode": (12, 1e-05, "gelu_pytorch_tanh", None, None),
    "gpt_neox": (64, 1e-05, "gelu", 10000.0, 0.25),
    "gpt_oss": (64, 1e-05, "silu", 150000.0, None),
    "gptj": (16, 1e-05, "gelu_new", None, None),
    "granite": (32, 1e-06, "silu", 10000.0, None),
    "granitemoe": (32, 1e-06, "silu", 10000.0, None),
    "hubert": (12, 1e-05, "gelu", None, None),
    "hunyuan_v1_dense": (32, 1e-05, "silu", 10000.0, None),
    "idefics3_vision": (16, 1e-06, "gelu_pytorch_tanh", None, None),
    "internvl_vision": (16, 1e-06, "gelu", None, None),
    "jamba": (32, 1e-06, "silu", None, None),
    "llama": (32, 1e-06, "silu", 10000.0, None),
    "llama4_text": (40, 1e-05, "silu", 500000.0, None),
    "llama4_vision_model": (16, 1e-05, "gelu", 10000.0, None),
    "mamba2": (128, 1e-05, "silu", None, None),
    "ministral": (32, 1e-06, "silu", 10000.0, None),
    "mistral": (32, 1e-06, "silu", 10000.0, None),
    "mixtral": (32, 1e-05, "silu", 1000000.0, None),
    "mllama_text_model": (32, 1e-05, "silu", 500000.0, None),
    "modernbert": (12, 1e-05, "gelu", 160000.0, None),
    "mpt": (16, 1e-05, None, None, None),
    "mt5": (6, 1e-06, None, None, None),
    "nemotron": (48, 1e-05, "relu2", 10000.0, 0.5),
    "olmo": (32, None, "silu", 10000.0, None),
    "olmo2": (32, 1e-05, "silu", 10000.0, None),
    "opt": (12, None, "relu", None, None),
    "phi": (32, 1e-05, "gelu_new", 10000.0, 0.5),
    "phi3": (32, 1e-05, "silu", 10000.0, 1.0),
    "phi4_multimodal_audio": (16, None, "swish", None, None),
    "phi4_multimodal_vision": (16, 1e-06, "gelu_pytorch_tanh", None, None),
    "pixtral": (16, None, "gelu", None, None),
    "qwen2": (32, 1e-06, "silu", 10000.0, None),
    "qwen2_5_omni_text": (28, 1e-06, "silu", 1000000.0, None),
    "qwen2_5_vl_text": (64, 1e-05, "silu", 1000000.0, None),
    "qwen2_5_vl_vision": (16, None, "silu", None, None),
    "qwen2_moe": (16, 1e-06, "silu", 10000.0, None),
    "qwen2_vl_text": (64, 1e-05, "silu", 1000000.0, None),
    "qwen2_vl_vision": (16, None, "quick_gelu", None, None),
    "qwen3": (32, 1e-06, "silu", 10000.0, None),
    "qwen3_moe": (32, 1e-06, "silu", 10000.0, None),
    "qwen3_next": (16, 1e-06, "silu", 10000.0, 0.25),
    "qwen3_vl_moe_text": (16, 1e-06, "silu", 500000.0, None),
    "qwen3_vl_text": (32, 1e-06, "silu", 500000.0, None),
    "qwen3_vl_vision": (16, None, "gelu_pytorch_tanh", None, None),
    "roberta": (12, 1e-12, "gelu", None, None),
    "seed_oss": (80, 1e-06, "silu", 10000.0, None),
    "siglip2_vision_model": (12, 1e-06, "gelu_pytorch_tanh", None, None),
    "siglip_vision_model": (12, 1e-06, "gelu_pytorch_tanh", None, None),
    "smollm3": (16, 1e-06, "silu", 2000000.0, None),
    "smolvlm_vision": (16, 1e-06, "gelu_pytorch_tanh", None, None),
    "stablelm": (32, 1e-05, "silu", 10000.0, 0.25),
    "starcoder2": (24, 1e-05, "gelu_pytorch_tanh", 10000.0, None),
    "t5": (8, 1e-06, None, None, None),
    "umt5": (6, 1e-06, None, None, None),
    "vit": (12, 1e-12, "gelu", None, None),
    "wav2vec2": (12, 1e-05, "gelu", None, None),
    "xlm-roberta": (12, 1e-12, "gelu", None, None),
}  # fmt: skip


def class_default(config: Mapping[str, Any], column: int) -> Any:
    """Return the default of a config's class, or None where it is not known."""
    kind = config.get("model_type")
    row = _DEFAULTS.get(kind) if isinstance(kind, str) else None
    return row[column] if row else None


def known_classes() -> tuple[str, ...]:
    """Return the model types whose defaults are known."""
    return tuple(_DEFAULTS)

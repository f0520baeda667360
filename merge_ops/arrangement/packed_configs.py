"""Configs of models that pack queries, keys and values, and of the classes that do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import Fault

_TRUE, _FALSE = True, False
_CHATGLM_SAYS: Mapping[str, tuple[Any, ...]] = {
    "rmsnorm": (_TRUE,),
    "post_layer_norm": (_TRUE,),
    "multi_query_attention": (_TRUE,),
    "add_qkv_bias": (_TRUE,),
    "original_rope": (_TRUE,),
    "add_bias_linear": (_FALSE,),
    "apply_residual_connection_post_layernorm": (_FALSE,),
}
"""What config.json must say: the code of ChatGLM computes something else otherwise."""
_CHATGLM_ABSENT = ("pre_seq_len", "quantization_bit", "interleaved_qkv", "tie_word_embeddings",
                   "prefix_projection", "vision_config")  # fmt: skip
_GLM = {
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "multi_query_group_num",
    "head_dim": "kv_channels",
    "vocab_size": "padded_vocab_size",
    "max_position_embeddings": "seq_length",
    "rms_norm_eps": "layernorm_epsilon",
}
_LLAMA = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "num_key_value_heads", "vocab_size", "max_position_embeddings",
          "rms_norm_eps")  # fmt: skip
_TOLD = ("hidden_act", "initializer_range", "use_cache", "bos_token_id", "eos_token_id",
         "pad_token_id", "dtype", "torch_dtype", "transformers_version")  # fmt: skip
_THETA = 10000.0
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # defaults of InternLM2


def needed_numbers(kind: str) -> tuple[str, ...]:
    """Return the keys of a config.json that must be numbers."""
    return tuple(_GLM.values()) if kind == "chatglm" else _LLAMA


def packed_config_faults(model: Checkpoint, kind: str) -> Iterator[Fault]:
    """Yield settings of a config under which the classes compute different things."""
    config, where = model.config, model.name
    if config.get("quantization_config"):
        yield Fault(where, "is quantized; only plain weights are repacked")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        yield Fault(where, f"has `hidden_act: {config['hidden_act']}`; it must be silu")
    if kind == "chatglm":
        for key, allowed in _CHATGLM_SAYS.items():
            if config.get(key) not in allowed:
                told = f"`{key}: {config.get(key)}`" if key in config else f"no `{key}`"
                yield Fault(where, f"has {told} in config.json; glm computes `{key}: {allowed[0]}`")
        for key in _CHATGLM_ABSENT:
            if config.get(key):
                yield Fault(where, f"has `{key}: {config[key]}`, which glm does not know")
        return
    table: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = cast("Mapping[str, Any]", table) if isinstance(table, Mapping) else {"rope_type": table}
    if "rope_theta" not in config and "rope_theta" not in rope:
        yield Fault(where, "does not say `rope_theta` in config.json, and classes differ in it")
    name = rope.get("rope_type", rope.get("type", "default"))
    allowed = ("default",) if kind == "glm" else ("default", "linear", "dynamic")
    if name not in allowed:
        problem = f"has a rotary embedding of kind {name!r}; both classes know"
        yield Fault(where, f"{problem} {', '.join(allowed)}")
    share = config.get("partial_rotary_factor", rope.get("partial_rotary_factor"))
    if kind == "glm" and share not in (None, 0.5):
        yield Fault(where, f"turns a share of {share} of each head; chatglm turns one half")
    if kind == "glm" and config.get("attention_bias") is False:
        yield Fault(where, "has `attention_bias: false`; chatglm has biases of q, k and v")
    if kind == "internlm2" and config.get("architectures", ["InternLM2ForCausalLM"]) != [
        "InternLM2ForCausalLM"
    ]:
        yield Fault(where, f"is {config['architectures']}; only InternLM2ForCausalLM is known")


def packed_config(config: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Return the config.json of a repacked model, of whose config there are no faults."""
    told = {key: config[key] for key in _TOLD if key in config}
    table: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = dict(cast("Mapping[str, Any]", table))
    theta = config.get("rope_theta", rope.get("rope_theta", _THETA))
    if target == "glm":
        made = {new: config[old] for new, old in _GLM.items()}
        theta = _THETA * float(config.get("rope_ratio", 1))
        rotary = {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 0.5}
        made |= {"rope_parameters": rotary, "rope_theta": theta, "partial_rotary_factor": 0.5}
        made |= {"attention_bias": True, "tie_word_embeddings": False, "hidden_act": "silu"}
        told = {**dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")), **told}
        return {"architectures": ["GlmForCausalLM"], "model_type": "glm", **made, **told}
    if target == "chatglm":
        made = {old: config[new] for new, old in _GLM.items() if new in config}
        made["kv_channels"] = config.get("head_dim") or (
            config["hidden_size"] // config["num_attention_heads"]
        )
        ratio = theta / _THETA
        made |= {key: allowed[0] for key, allowed in _CHATGLM_SAYS.items()}
        made |= {"rope_ratio": int(ratio) if ratio == int(ratio) else ratio}
        return {"architectures": ["ChatGLMModel"], "model_type": "chatglm", **told, **made}
    made = {key: config[key] for key in _LLAMA}
    made |= {"tie_word_embeddings": bool(config.get("tie_word_embeddings", False))}
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaled = None if kind == "default" else {"type": kind, "factor": rope.get("factor", 1.0)}
    made |= {"rope_theta": theta, "rope_scaling": scaled, "hidden_act": "silu"}
    if target == "llama":
        told = {**_TOKENS, **told}
        made |= {"attention_bias": False, "mlp_bias": False}
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **told, **made}
    made |= {"bias": False}
    return {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", **told, **made}

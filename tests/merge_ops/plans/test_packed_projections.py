"""InternLM2 and ChatGLM, whose q, k and v are one matrix: the same logits unpacked, and back."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from merge_ops.errors import CompatibilityError
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import edit_config, write_tokenizer
from tests.models.moe_models import TOKENS, logits

WIDTH, INNER, LAYERS, HEADS, GROUPS, SIZE, WORDS = 32, 24, 2, 4, 2, 8, 264
EPSILON, THETA = 1e-5, 10000.0
PACKED = (HEADS + 2 * GROUPS) * SIZE
INTERNLM2 = {
    "architectures": ["InternLM2ForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
    "model_type": "internlm2",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "vocab_size": WORDS,
    "max_position_embeddings": 64,
    "rms_norm_eps": EPSILON,
    "rope_theta": THETA,
    "rope_scaling": None,
    "hidden_act": "silu",
    "bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
CHATGLM = {
    "architectures": ["ChatGLMModel"],
    "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
    "model_type": "chatglm",
    "hidden_size": WIDTH,
    "ffn_hidden_size": INNER,
    "num_layers": LAYERS,
    "num_attention_heads": HEADS,
    "multi_query_group_num": GROUPS,
    "multi_query_attention": True,
    "kv_channels": SIZE,
    "padded_vocab_size": WORDS,
    "vocab_size": WORDS,
    "seq_length": 64,
    "layernorm_epsilon": EPSILON,
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "original_rope": True,
    "apply_residual_connection_post_layernorm": False,
    "apply_query_key_layer_scaling": True,
    "rope_ratio": 4,
    "pre_seq_len": None,
    "quantization_bit": 0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _norm(values: Tensor, scale: Tensor) -> Tensor:
    return values * (values.pow(2).mean(-1, keepdim=True) + EPSILON).rsqrt() * scale


def _angles(count: int, size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (count, size / 2)."""
    turns = 1.0 / theta ** (torch.arange(0, size, 2).float() / size)
    told = torch.outer(torch.arange(count).float(), turns)
    return told.cos(), told.sin()


def _halves(values: Tensor) -> Tensor:
    """InternLM2 turns pairs (i, i + size / 2) of each head; (…, tokens, size)."""
    cos, sin = _angles(values.shape[-2], SIZE, THETA)
    one, other = values.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)


def _neighbours(values: Tensor) -> Tensor:
    """ChatGLM turns pairs (2i, 2i + 1) of the first half of each head."""
    theta = THETA * CHATGLM["rope_ratio"]
    cos, sin = _angles(values.shape[-2], SIZE // 2, theta)
    turned, rest = values.chunk(2, dim=-1)
    pairs = turned.unflatten(-1, (-1, 2))
    one, other = pairs[..., 0], pairs[..., 1]
    made = torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1)
    return torch.cat([made.flatten(-2), rest], dim=-1)


def _attended(q: Tensor, k: Tensor, v: Tensor, turn: Callable[[Tensor], Tensor]) -> Tensor:
    """Grouped attention of (batch, tokens, heads, size)."""
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    k, v = (each.repeat_interleave(HEADS // GROUPS, dim=1) for each in (turn(k), v))
    return scaled_dot_product_attention(turn(q), k, v, is_causal=True).transpose(1, 2).flatten(2)


def _internlm2(weights: Mapping[str, Tensor]) -> Tensor:
    """What InternLM2's published code computes, written anew."""
    states = weights["model.tok_embeddings.weight"][TOKENS]
    for layer in range(LAYERS):
        own = {
            name.removeprefix(f"model.layers.{layer}."): each
            for name, each in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        packed = _norm(states, own["attention_norm.weight"]) @ own["attention.wqkv.weight"].T
        grouped = packed.unflatten(-1, (GROUPS, HEADS // GROUPS + 2, SIZE))
        q = grouped[..., : HEADS // GROUPS, :].flatten(2, 3)
        attended = _attended(q, grouped[..., -2, :], grouped[..., -1, :], _halves)
        states = states + attended @ own["attention.wo.weight"].T
        entering = _norm(states, own["ffn_norm.weight"])
        gate, up = (entering @ own[f"feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        states = states + (silu(gate) * up) @ own["feed_forward.w2.weight"].T
    return _norm(states, weights["model.norm.weight"]) @ weights["output.weight"].T


def _chatglm(weights: Mapping[str, Tensor]) -> Tensor:
    """What the published code of ChatGLM2, ChatGLM3 and GLM-4 computes, written anew."""
    states = weights["transformer.embedding.word_embeddings.weight"][TOKENS]
    for layer in range(LAYERS):
        front = f"transformer.encoder.layers.{layer}."
        own = {n.removeprefix(front): each for n, each in weights.items() if n.startswith(front)}
        packed = _norm(states, own["input_layernorm.weight"])
        packed = packed @ own["self_attention.query_key_value.weight"].T
        packed = packed + own["self_attention.query_key_value.bias"]
        q, k, v = packed.split([HEADS * SIZE, GROUPS * SIZE, GROUPS * SIZE], dim=-1)
        heads = [each.unflatten(-1, (-1, SIZE)) for each in (q, k, v)]
        attended = _attended(*heads, _neighbours)
        states = states + attended @ own["self_attention.dense.weight"].T
        entering = _norm(states, own["post_attention_layernorm.weight"])
        gate, up = (entering @ own["mlp.dense_h_to_4h.weight"].T).chunk(2, dim=-1)
        states = states + (silu(gate) * up) @ own["mlp.dense_4h_to_h.weight"].T
    states = _norm(states, weights["transformer.encoder.final_layernorm.weight"])
    return states @ weights["transformer.output_layer.weight"].T


def _internlm2_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.tok_embeddings.weight": (WORDS, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.attention_norm.weight": (WIDTH,),
            f"{at}.attention.wqkv.weight": (PACKED, WIDTH),
            f"{at}.attention.wo.weight": (WIDTH, HEADS * SIZE),
            f"{at}.ffn_norm.weight": (WIDTH,),
            f"{at}.feed_forward.w1.weight": (INNER, WIDTH),
            f"{at}.feed_forward.w2.weight": (WIDTH, INNER),
            f"{at}.feed_forward.w3.weight": (INNER, WIDTH),
        }
    return {**shapes, "model.norm.weight": (WIDTH,), "output.weight": (WORDS, WIDTH)}


def _chatglm_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.embedding.word_embeddings.weight": (WORDS, WIDTH)
    }
    for layer in range(LAYERS):
        at = f"transformer.encoder.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (WIDTH,),
            f"{at}.self_attention.query_key_value.weight": (PACKED, WIDTH),
            f"{at}.self_attention.query_key_value.bias": (PACKED,),
            f"{at}.self_attention.dense.weight": (WIDTH, HEADS * SIZE),
            f"{at}.post_attention_layernorm.weight": (WIDTH,),
            f"{at}.mlp.dense_h_to_4h.weight": (2 * INNER, WIDTH),
            f"{at}.mlp.dense_4h_to_h.weight": (WIDTH, INNER),
        }
    shapes["transformer.encoder.final_layernorm.weight"] = (WIDTH,)
    return {**shapes, "transformer.output_layer.weight": (WORDS, WIDTH)}


KINDS: dict[str, tuple[dict[str, Any], Callable[..., Tensor], str]] = {
    "internlm2": (INTERNLM2, _internlm2, "llama"),
    "chatglm": (CHATGLM, _chatglm, "glm"),
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    shapes = {"internlm2": _internlm2_shapes(), "chatglm": _chatglm_shapes()}
    for number, (kind, (config, _, _)) in enumerate(KINDS.items()):
        folder = tmp_path / kind
        folder.mkdir()
        torch.manual_seed(number)
        tensors = {
            name: 1 + 0.1 * torch.randn(shape) if "norm" in name else 0.3 * torch.randn(shape)
            for name, shape in shapes[kind].items()
        }
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        write_tokenizer(folder)
    buffer = {"transformer.rotary_pos_emb.inv_freq": torch.ones(2)}
    tensors = load_file(tmp_path / "chatglm" / "model.safetensors")
    save_file({**tensors, **buffer}, tmp_path / "chatglm" / "model.safetensors")
    return tmp_path


def convert(tmp_path: Path, model: Path, target: str) -> Path:
    (tmp_path / "c.yaml").write_text(f"convert: {target}\nmodels: [{{model: {model}}}]\n")
    return merge_in_process(tmp_path / "c.yaml", tmp_path / f"{model.name}-{target}")


@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_and_every_bit_comes_back(models: Path, tmp_path: Path, kind: str) -> None:
    config, computed, target = KINDS[kind]
    before = load_file(models / kind / "model.safetensors")
    made = convert(tmp_path, models / kind, target)
    told = json.loads((made / "config.json").read_text())
    assert (told["model_type"], "auto_map" in told) == (target, False)
    torch.testing.assert_close(logits(made), computed(before), atol=2e-5, rtol=1e-5)
    back = convert(tmp_path, made, kind)
    after = load_file(back / "model.safetensors")
    before.pop("transformer.rotary_pos_emb.inv_freq", None)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], each) for name, each in before.items())
    written = json.loads((back / "config.json").read_text())
    unsaid = {"auto_map", "torch_dtype", "pre_seq_len", "quantization_bit", "vocab_size"}
    unsaid |= {"apply_query_key_layer_scaling", "tie_word_embeddings"}
    assert {key: written.get(key) for key in config.keys() - unsaid} == {
        key: config[key] for key in config.keys() - unsaid
    }


def test_an_unpacked_model_goes_on_to_other_names(models: Path, tmp_path: Path) -> None:
    """Two documents: what InternLM2 becomes is a llama as any other."""
    (tmp_path / "c.yaml").write_text(
        f"name: one\nconvert: llama\nmodels: [{{model: {models / 'internlm2'}}}]\n"
        "---\nconvert: mixtral\nmodels: [{model: one}]\n"
    )
    from orchestration.commands.merging.merge_command import MergeOptions, run_merge

    options = MergeOptions("1", "cpu", None, "5GB", verify=False)
    run_merge(tmp_path / "c.yaml", tmp_path / "out", options)
    wanted = _internlm2(load_file(models / "internlm2" / "model.safetensors"))
    torch.testing.assert_close(logits(tmp_path / "out"), wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("chatglm", {"rmsnorm": False}, "has `rmsnorm: False` in config.json; glm computes"),
        ("chatglm", {"multi_query_attention": False}, "`multi_query_attention: True`"),
        ("chatglm", {"pre_seq_len": 8}, "has `pre_seq_len: 8`, which glm does not know"),
        ("chatglm", {"num_layers": None}, "does not say num_layers in config.json"),
        ("chatglm", {"num_layers": 3}, r"lacks q, k or v \(weight\) in layer 2"),
        ("chatglm", {"kv_channels": 4}, "its heads make 32 rows"),
        ("internlm2", {"num_attention_heads": 3}, "heads that do not divide into key-value heads"),
        ("internlm2", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "of kind 'yarn'; both"),
        ("internlm2", {"rope_theta": None}, None),
        ("internlm2", {"model_type": "internlm"}, "has model_type 'internlm'"),
        ("internlm2", {"architectures": ["InternLM2ForRewardModel"]}, "only InternLM2ForCausalLM"),
    ],
)
def test_what_would_not_be_exact_is_refused(
    models: Path, tmp_path: Path, kind: str, changes: dict[str, Any], told: str | None
) -> None:
    folder = models / kind
    if told is None:
        config = json.loads((folder / "config.json").read_text())
        del config["rope_theta"]
        (folder / "config.json").write_text(json.dumps(config))
        told = "does not say `rope_theta`"
    else:
        edit_config(folder, **changes)
    with pytest.raises(CompatibilityError, match=told):
        convert(tmp_path, folder, KINDS[kind][2])


def test_other_pairs_and_other_tensors_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="is converted from chatglm to glm, glm to"):
        convert(tmp_path, models / "internlm2", "glm")
    with pytest.raises(CompatibilityError, match="has model_type 'chatglm'"):
        convert(tmp_path, models / "chatglm", "llama")
    tensors = load_file(models / "internlm2" / "model.safetensors")
    more = {"model.layers.0.attention.wqkv.bias": torch.ones(PACKED)}
    save_file({**tensors, **more}, models / "internlm2" / "model.safetensors")
    with pytest.raises(CompatibilityError, match=r"wqkv\.bias', which llama has no place for"):
        convert(tmp_path, models / "internlm2", "llama")

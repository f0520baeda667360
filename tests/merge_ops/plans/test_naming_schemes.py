"""Checkpoints of many architectures merge by the names of their tensors; no code of theirs runs.

Those that transformers has classes for are made by transformers itself and loaded again by it; the
others have the names and shapes that their published checkpoints have, with a modelling file that
would be noticed if anybody executed it.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.names.tensor_names import is_embedding, is_head
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NATIVE = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 8},
    "glm": {"head_dim": 8},
    "internlm3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 32},
    "phi3": {},
    "qwen2_moe": {**MIXTURE, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**MIXTURE, "head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "moe_intermediate_size": 16, "n_shared_experts": 1,
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 8, "num_key_value_heads": 4,
    },
}  # fmt: skip
LAYERS = 3


def remote(prefix, embedding, head, norm, parts):
    """Names and shapes of a checkpoint whose class is not in transformers."""
    shapes = {embedding: (40, 16), norm: (16,), head: (40, 16)}
    for layer in range(LAYERS):
        shapes |= {f"{prefix}.{layer}.{name}": shape for name, shape in parts.items()}
    return shapes


REMOTE = {
    "chatglm": remote(
        "transformer.encoder.layers",
        "transformer.embedding.word_embeddings.weight",
        "transformer.output_layer.weight",
        "transformer.encoder.final_layernorm.weight",
        {
            "input_layernorm.weight": (16,),
            "self_attention.query_key_value.weight": (24, 16),  # queries, keys and values in one
            "self_attention.query_key_value.bias": (24,),
            "self_attention.dense.weight": (16, 16),
            "post_attention_layernorm.weight": (16,),
            "mlp.dense_h_to_4h.weight": (56, 16),  # gate and up projection in one
            "mlp.dense_4h_to_h.weight": (16, 28),
        },
    ),
    "baichuan": remote(
        "model.layers",
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        {
            "self_attn.W_pack.weight": (48, 16),
            "self_attn.o_proj.weight": (16, 16),
            "mlp.gate_proj.weight": (28, 16),
            "mlp.down_proj.weight": (16, 28),
            "input_layernorm.weight": (16,),
        },
    ),
    "internlm2": remote(
        "model.layers",
        "model.tok_embeddings.weight",
        "output.weight",
        "model.norm.weight",
        {
            "attention.wqkv.weight": (32, 16),
            "attention.wo.weight": (16, 16),
            "feed_forward.w1.weight": (28, 16),
            "feed_forward.w2.weight": (16, 28),
            "attention_norm.weight": (16,),
        },
    ),
    "qwen": remote(
        "transformer.h",
        "transformer.wte.weight",
        "lm_head.weight",
        "transformer.ln_f.weight",
        {
            "attn.c_attn.weight": (48, 16),
            "attn.c_attn.bias": (48,),
            "attn.c_proj.weight": (16, 16),
            "mlp.w1.weight": (28, 16),
            "ln_1.weight": (16,),
        },
    ),
}
TEXT = """
merge_method: task_arithmetic
base_model: {base}
models:
  - {{model: {expert}, parameters: {{weight: [0.2, 1.0]}}}}
dtype: float32
"""


def merged(base: Path, expert: Path, tmp_path: Path) -> Path:
    config = tmp_path / "study.yaml"
    config.write_text(TEXT.format(base=base, expert=expert))
    return merge_in_process(config, tmp_path / "out")


def check_gradient(base, expert, out, last_layer):
    """Weight 0.2 before, behind and in the first layer, 1.0 in the last."""
    for name, tensor in factory.read_tensors(base).items():
        delta = factory.read_tensors(expert)[name] - tensor
        weight = 1.0 if f"{last_layer}." in name else 0.2
        if last_layer.endswith("2") and f"{last_layer[:-1]}1." in name:
            weight = 0.6  # the layer between
        torch.testing.assert_close(factory.read_tensors(out)[name], tensor + weight * delta)


@pytest.mark.parametrize("kind", NATIVE)
def test_what_transformers_saves_merges_and_loads(kind, tmp_path):
    config = AutoConfig.for_model(kind, **{**SMALL, **NATIVE[kind]})
    for seed, name in enumerate(("base", "expert")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.save_pretrained(tmp_path / name)
    out = merged(tmp_path / "base", tmp_path / "expert", tmp_path)
    check_gradient(tmp_path / "base", tmp_path / "expert", out, "model.layers.1")
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert torch.isfinite(loaded(torch.tensor([[3, 4, 5]])).logits).all()


@pytest.mark.parametrize("kind", REMOTE)
def test_what_needs_remote_code_merges_without_running_it(kind, tmp_path):
    for seed, name in enumerate(("base", "expert")):
        folder = tmp_path / name
        folder.mkdir()
        shapes = REMOTE[kind]
        tensors = {key: factory.draw(key, shape, seed, 1.0) for key, shape in shapes.items()}
        factory.write_weights(folder, tensors)
        module = f"modeling_{kind}.py"
        (folder / module).write_text(f"open({str(tmp_path / 'executed')!r}, 'w').write('yes')\n")
        auto_map = {"AutoModelForCausalLM": f"modeling_{kind}.Model"}
        config = {"model_type": kind, "num_layers": LAYERS, "auto_map": auto_map}
        factory.write_json(folder / "config.json", config)
    out = merged(tmp_path / "base", tmp_path / "expert", tmp_path)
    stack = next(name for name in REMOTE[kind] if ".2." in name).split(".2.")[0]
    check_gradient(tmp_path / "base", tmp_path / "expert", out, f"{stack}.2")
    assert (out / f"modeling_{kind}.py").exists()  # whoever loads it decides
    assert json.loads((out / "config.json").read_text())["num_layers"] == LAYERS
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", REMOTE)
def test_layers_of_every_scheme_can_be_stacked(kind, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    shapes = REMOTE[kind]
    factory.write_weights(folder, {key: factory.draw(key, shapes[key], 1, 1.0) for key in shapes})
    factory.write_json(folder / "config.json", {"model_type": kind, "num_layers": LAYERS})
    recipe = parse_recipe(
        "merge_method: passthrough\nslices:\n"
        "  - sources: [{model: one, layer_range: [0, 3]}]\n"
        "  - sources: [{model: one, layer_range: [1, 3]}]\n",
        "study",
        "study.yaml",
    )
    plan = plan_merge(recipe, {"one": open_checkpoint("one", FolderSource(folder))})
    per_layer = sum(".0." in name for name in shapes)
    assert len(plan.steps) == len(shapes) + 2 * per_layer
    assert plan.config["num_layers"] == 5


def test_embeddings_and_heads_are_known_by_name():
    for shapes in REMOTE.values():
        wide = [name for name, shape in shapes.items() if shape == (40, 16)]
        assert [is_embedding(name) for name in sorted(wide)].count(True) == 1
        assert [is_head(name) for name in sorted(wide)].count(True) == 1

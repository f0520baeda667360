"""Buffers that loading computes anew are told by name, dtype and shape, and never averaged."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.buffers import is_buffer, is_counter
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory

LINEAR = """merge_method: linear
models: [{{model: {0}}}, {{model: {1}}}]
parameters: {{weight: 0.5}}
"""
CHANGES = """merge_method: task_arithmetic
base_model: {0}
models: [{{model: {1}}}]
parameters: {{weight: 1.0}}
"""
WEIGHT = "layers.0.mlp.weight"


def entry(dtype: str, *shape: int) -> TensorEntry:
    return TensorEntry(dtype, shape, "model.safetensors", 0, 0)


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("text_model.embeddings.position_ids", "I64", (1, 77)),
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", "F16", (1, 77)),
        ("embeddings.token_type_ids", "I64", (1, 512)),
        ("h.0.attn.bias", "F32", (1, 1, 8, 8)),
        ("h.0.attn.bias", "U8", (1, 1, 8, 8)),
        ("transformer.h.0.attn.attention.bias", "BOOL", (1, 1, 8, 8)),
        ("gpt_neox.layers.0.attention.bias", "BOOL", (1, 1, 8, 8)),
        ("gpt_neox.layers.0.attention.masked_bias", "F32", ()),
        ("transformer.rotary_pos_emb.inv_freq", "F16", (4,)),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (4,)),
        ("gpt_neox.layers.0.attention.rotary_emb.cos_cached", "F32", (1, 1, 8, 4)),
        ("rope.freqs", "BF16", (4,)),
        ("layers.0.blocks.0.attn.relative_position_index", "I64", (49, 49)),
        ("layers.0.blocks.1.attn_mask", "F32", (4, 49, 49)),
        ("attn_mask", "F32", (77, 77)),
        ("transformer.h.0.attn.causal_mask", "BOOL", (1, 1, 8, 8)),
    ],
)
def test_what_is_a_buffer(name, dtype, shape):
    assert is_buffer(name, entry(dtype, *shape))


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("blocks.0.attn.bias", "F32", (192,)),  # a vision transformer's learned bias
        ("h.0.attn.bias", "F32", (1, 1, 8, 4)),
        ("h.0.attn.c_attn.bias", "F32", (96,)),
        ("bias", "F32", (1, 1, 8, 8)),
        ("bn1.num_batches_tracked", "I64", ()),
        ("embeddings.position_embeddings.weight", "F32", (77, 8)),
        ("attn.relative_position_bias_table", "F32", (169, 4)),
        ("encoder.token_type_ids", "F32", (2, 8)),
        ("masked_bias", "F32", (8,)),
    ],
)
def test_what_is_none(name, dtype, shape):
    assert not is_buffer(name, entry(dtype, *shape))


def test_a_counter_is_copied_and_no_buffer():
    assert is_counter("bn1.num_batches_tracked")
    assert not is_counter("bn1.running_mean")


def write(folder: Path, tensors: factory.Tensors) -> Path:
    folder.mkdir()
    factory.write_weights(folder, tensors)
    factory.write_json(folder / "config.json", {"model_type": "clip"})
    return folder


def merged(tmp_path: Path, recipe: str, *models: Path) -> factory.Tensors:
    (tmp_path / "recipe.yaml").write_text(recipe.format(*models))
    out = merge_in_process(tmp_path / "recipe.yaml", tmp_path / f"out-{models[0].name}")
    return load_file(out / "model.safetensors")


BUFFERS = {
    "position_ids": torch.arange(8)[None],
    "transformer.rotary_pos_emb.inv_freq": torch.rand(4).half(),
    "h.0.attn.bias": torch.ones(1, 1, 4, 4).tril(),
    "attn_mask": torch.full((4, 4), float("-inf")).triu(1),
    "swin.relative_position_index": torch.arange(16).reshape(4, 4),
}


@pytest.mark.parametrize("recipe", [LINEAR, CHANGES])
@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_on_one_side_is_copied_or_left_out(tmp_path, name, recipe):
    weight = {"a": torch.rand(3, 4), "b": torch.rand(3, 4)}
    plain = write(tmp_path / "plain", {WEIGHT: weight["a"]})
    old = write(tmp_path / "old", {WEIGHT: weight["b"], name: BUFFERS[name]})
    newer = merged(tmp_path, recipe, plain, old)
    older = merged(tmp_path, recipe, old, plain)
    assert set(newer) == {WEIGHT}
    assert torch.equal(older[name], BUFFERS[name])
    if recipe is LINEAR:
        mean = (weight["a"].double() + weight["b"].double()) / 2
        assert torch.allclose(newer[WEIGHT].double(), mean, atol=1e-7)
    models = {str(path): open_checkpoint(str(path), FolderSource(path)) for path in (plain, old)}
    plan = plan_merge(parse_recipe(recipe.format(plain, old), "r", "r.yaml"), models)
    assert "a buffer that loading recomputes" in plan.excluded[name]


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_of_both_is_the_first_models_whatever_the_dtype(tmp_path, name):
    first = write(tmp_path / "a", {WEIGHT: torch.ones(3, 4), name: BUFFERS[name]})
    other = BUFFERS[name][..., :-1].contiguous() + 1
    second = write(tmp_path / "b", {WEIGHT: torch.ones(3, 4), name: other})
    found = merged(tmp_path, LINEAR + "dtype: bfloat16\n", first, second)
    assert torch.equal(found[name], BUFFERS[name])
    assert found[name].dtype == BUFFERS[name].dtype


def test_a_learned_bias_is_averaged_and_missed(tmp_path):
    name = "blocks.0.attn.bias"
    first = write(tmp_path / "a", {WEIGHT: torch.ones(3, 4), name: torch.zeros(4)})
    second = write(tmp_path / "b", {WEIGHT: torch.ones(3, 4), name: torch.ones(4)})
    assert torch.equal(merged(tmp_path, LINEAR, first, second)[name], torch.full((4,), 0.5))


def test_counters_may_differ(tmp_path):
    name = "bn.num_batches_tracked"
    first = write(tmp_path / "a", {WEIGHT: torch.ones(3, 4), name: torch.tensor(7)})
    second = write(tmp_path / "b", {WEIGHT: torch.ones(3, 4), name: torch.tensor(9)})
    assert merged(tmp_path, LINEAR, first, second)[name] == 7
    third = write(tmp_path / "c", {WEIGHT: torch.ones(3, 4)})  # torch before 0.4.1 had none
    assert name not in merged(tmp_path, LINEAR, third, second)


@pytest.mark.parametrize("old", ["base", "expert"])
def test_a_clip_with_and_without_position_ids_loads(tmp_path, old):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=8, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    states = {}
    for seed, name in enumerate(("base", "expert")):
        torch.manual_seed(seed)
        CLIPTextModel(config).save_pretrained(tmp_path / name)
        states[name] = load_file(tmp_path / name / "model.safetensors")
    ids = next(iter(states[old])).split("embeddings.")[0] + "embeddings.position_ids"
    factory.write_weights(tmp_path / old, states[old] | {ids: torch.arange(8)[None]})
    merged(tmp_path, LINEAR, tmp_path / "base", tmp_path / "expert")
    loaded, report = CLIPTextModel.from_pretrained(tmp_path / "out-base", output_loading_info=True)
    assert not report["missing_keys"]
    for name, values in loaded.state_dict().items():
        if name in states["base"]:
            mean = (states["base"][name].double() + states["expert"][name].double()) / 2
            assert torch.allclose(values.double(), mean, atol=1e-6)

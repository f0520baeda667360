"""Quantized weights are told wherever they are said, or not said; sound models are not taken so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.checkpoints.quantization import quantization_fault, quantization_of
from merge_ops.errors import CheckpointError, CompatibilityError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

PLAIN = {"layers.0.mlp.weight": torch.ones(4, 4), "norm.weight": torch.ones(4)}
CODES = torch.arange(32, dtype=torch.uint8).reshape(4, 8)
SCALES = torch.ones(4, 1)


def opened(
    folder: Path,
    tensors: factory.Tensors = PLAIN,
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, object] | None = None,
):
    """A checkpoint of these tensors, with this config and these JSON files beside it."""
    folder.mkdir(parents=True)
    factory.write_weights(
        folder, {name: each.clone().contiguous() for name, each in tensors.items()}
    )
    for name, content in {"config.json": config or {}, **(files or {})}.items():
        factory.write_json(folder / name, content)
    return open_checkpoint(folder.name, FolderSource(folder))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"load_in_4bit": True}}, "of unnamed kind"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX, 4 bits"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"vision_config": {"quantization": {"bits": 8}}}, "MLX, 8 bits"),
        ({"thinker_config": {"text_config": {"quantization_config": {"bits": 8}}}}, "8 bits"),
        ({"compression_config": {"format": "pack-quantized"}}, "pack-quantized"),
        ({"quantization_bit": 4}, "4 bits"),
        ({"quantization": "awq"}, "awq"),
    ],
)
def test_configs_say_it_in_many_places(tmp_path, config, kind):
    found = opened(tmp_path / "m", config=config)
    assert kind in str(quantization_of(found))
    told = str(quantization_fault(found))
    assert told.startswith(f"m is quantized ({quantization_of(found)}); merge the unquantized")
    assert "where they are the unquantized weights, take that entry or file away" in told


@pytest.mark.parametrize(
    ("file", "content", "kind"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "GPTQ, 4 bits"),
        ("quant_config.json", {"w_bit": 4, "zero_point": True}, "AWQ, 4 bits"),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}, "FP8"),
    ],
)
def test_files_of_quantizers_say_it(tmp_path, file, content, kind):
    found = opened(tmp_path / "m", files={file: content})
    assert quantization_of(found) == f"{kind}, says {file}"


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"a.weight": CODES, "a.weight_scale": SCALES}, "U8 weights with scales"),
        ({"a.weight": CODES.view(torch.int8), "a.scale": SCALES}, "I8 weights with scales"),
        ({"a.weight": CODES.to(torch.uint32), "a.scales": SCALES, "a.biases": SCALES}, "MLX: U32"),
        ({"a.weight": CODES, "a.SCB": SCALES}, "bitsandbytes, 8 bits"),
        ({"a.weight": CODES, "a.weight.absmax": SCALES}, "bitsandbytes, 4 bits"),
        (
            {"a.weight": CODES, "a.weight.quant_state.bitsandbytes__nf4": CODES[0]},
            "bitsandbytes, 4 bits",
        ),
        ({"a.qweight": CODES.int(), "a.g_idx": CODES[0].int(), "a.scales": SCALES}, "GPTQ"),
        ({"a.qweight": CODES.int(), "a.qzeros": CODES.int(), "a.scales": SCALES}, "GPTQ or AWQ"),
        ({"e.gate_up_proj_blocks": CODES, "e.gate_up_proj_scales": CODES[:, 0]}, "MXFP4"),
        ({"a.weight_packed": CODES.int(), "a.weight_scale": SCALES}, "compressed-tensors"),
        ({"a.W_q": CODES, "a.scale": SCALES, "a.zero": SCALES}, "HQQ"),
        ({"a.weight": SCALES.to(torch.float8_e4m3fn), "a.weight_scale_inv": SCALES}, "FP8"),
        ({"a.weight": SCALES.to(torch.float8_e5m2)}, "FP8"),
        ({"a.weight": CODES}, "U8 weights"),
        ({"blocks.0.attn.qkv._data": CODES, "blocks.0.attn.qkv._scale": SCALES}, "U8 weights with"),
        ({"experts.w1": CODES.view(torch.int8), "experts.w1_scale": SCALES}, "I8 weights with"),
    ],
)
def test_tensors_tell_it_without_a_word(tmp_path, tensors, kind):
    found = opened(tmp_path / "m", {**PLAIN, **tensors})
    assert str(quantization_of(found)).startswith(kind)
    told = str(quantization_fault(found))
    assert "Integer tensors that differ between models cannot be averaged" in told
    assert "take that entry" not in told


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": None},
        {"quantization_config": {}},
        {"quantization": None, "text_config": {"quantization_config": {}}},
        {"quantization_bit": 0},
        {"quantization": "none"},
        {"quantization_config": {"quant_method": "bitnet", "quantization_mode": "online"}},
    ],
)
def test_configs_that_say_nothing(tmp_path, config):
    assert quantization_of(opened(tmp_path / "m", config=config)) is None


@pytest.mark.parametrize(
    "tensors",
    [
        {
            "text_model.embeddings.position_ids": torch.arange(8)[None],
            "logit_scale": torch.ones(()),
        },
        {"bn.num_batches_tracked": torch.tensor(7), "bn.running_mean": torch.ones(4)},
        {
            "attn.relative_position_index": torch.arange(16).reshape(4, 4),
            "attn.logit_scale": torch.ones(4, 1, 1),
            "attn.scale": torch.ones(4),
        },
        {"layers.0.layer_scale": torch.ones(4), "norm.scale": torch.ones(4)},
        {"norm.scales": torch.ones(4, 4), "norm.biases": torch.ones(4, 4)},
        {"h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "h.0.scale": torch.ones(4)},
        {"embeddings.token_type_ids": torch.zeros(1, 8, dtype=torch.long)},
        {"buckets.boundaries": torch.arange(4), "buckets.scale": torch.ones(4)},
        {"attn.W_q": torch.ones(4, 4)},
    ],
)
def test_sound_models_with_whole_numbers_or_scales(tmp_path, tensors):
    assert quantization_of(opened(tmp_path / "m", {**PLAIN, **tensors})) is None


def test_a_plan_refuses_before_anything_is_read(tmp_path):
    class Unread(FolderSource):
        def read_into(self, file, offset, buffer):
            if file.endswith(".safetensors"):
                assert offset + len(buffer) <= self.header, "a tensor was read"
            super().read_into(file, offset, buffer)

    models = {}
    for name in ("a", "b"):
        opened(tmp_path / name, {**PLAIN, "x.weight": CODES, "x.scales": SCALES})
        source = Unread(tmp_path / name)
        data = (tmp_path / name / "model.safetensors").read_bytes()
        source.header = 8 + int.from_bytes(data[:8], "little")
        models[name] = open_checkpoint(name, source)
    recipe = parse_recipe("merge_method: linear\nmodels: [{model: a}, {model: b}]", "r", "r.yaml")
    match = r"2 faults\n  - a is quantized \(U8 weights with scales, as 'x.weight' shows\); merge"
    with pytest.raises(CompatibilityError, match=match):
        plan_merge(recipe, models)


def test_floats_of_less_than_a_byte_are_refused_at_opening(tmp_path):
    opened(tmp_path / "m", {"a.weight": torch.zeros(4, dtype=torch.uint8)})

    def four_bits(header):
        header["a.weight"].update(dtype="F4", shape=[8])

    factory.rewrite_header(tmp_path / "m" / "model.safetensors", four_bits)
    with pytest.raises(CheckpointError, match=r"'a.weight' is F4, .*the model is quantized; merge"):
        open_checkpoint("m", FolderSource(tmp_path / "m"))

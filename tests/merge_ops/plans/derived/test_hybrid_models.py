"""Hybrids and fused mixtures of experts are merged by name, and nothing of them is dropped."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.steps import Copy
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import merge_in_process
from tests.models.moe_models import KINDS, logits, other_layout, write_family

LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_hidden_layers": 4,
}
MOE = {"num_experts": 4, "moe_intermediate_size": 24}
HYBRIDS = {
    "qwen3_next": {**LINEAR, **MOE, "shared_expert_intermediate_size": 16, "intermediate_size": 48},
    "qwen3_5_moe_text": {**LINEAR, **MOE, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": {**LINEAR, "intermediate_size": 48},
    "gemma4_text": {
        **MOE,
        "enable_moe_block": True,
        "top_k_experts": 2,
        "intermediate_size": 48,
        "num_hidden_layers": 6,
        "tie_word_embeddings": True,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 264,
        "global_head_dim": 8,
        "num_kv_shared_layers": 0,
    },
    "gpt_oss": {"num_local_experts": 4, "intermediate_size": 24},
    "llama4_text": {"num_local_experts": 4, "intermediate_size": 24, "intermediate_size_mlp": 48},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hybrids")
    with pytest.MonkeyPatch.context() as patch:
        for kind, sizes in HYBRIDS.items():
            patch.setitem(KINDS, kind, sizes)
            write_family(root / kind, kind, experts=1)
    return root


def merge_of(folder: Path, *names: str, more: str = "") -> str:
    listed = ", ".join(f"{{model: {folder / name}}}" for name in names)
    return f"merge_method: linear\nmodels: [{listed}]\nparameters: {{weight: 0.5}}\n{more}"


@pytest.mark.parametrize("kind", HYBRIDS)
def test_every_tensor_of_a_hybrid_is_merged(models: Path, tmp_path: Path, kind: str):
    folder = models / kind
    (tmp_path / "r.yaml").write_text(merge_of(folder, "base", "expert-1"))
    merged = load_file(
        merge_in_process(tmp_path / "r.yaml", tmp_path / "out") / "model.safetensors"
    )
    base, expert = (load_file(folder / n / "model.safetensors") for n in ("base", "expert-1"))
    assert set(merged) == set(base) == set(expert)
    for name, value in merged.items():
        if "layer_scalar" in name and torch.equal(value, base[name]):
            continue  # a buffer of Gemma 4, which is copied
        expected = (base[name].double() + expert[name].double()) / 2
        assert torch.allclose(value.double(), expected, atol=1e-7, rtol=1e-6), name
    assert torch.isfinite(logits(tmp_path / "out")).all()


def test_a_hybrid_in_two_layouts_is_merged_as_in_one(models: Path, tmp_path: Path):
    folder = models / "qwen3_5_moe_text"
    other_layout(folder / "expert-1", tmp_path / "fused")
    shutil.copytree(folder / "base", tmp_path / "base")
    shutil.copytree(folder / "expert-1", tmp_path / "one")
    results = []
    for name in ("fused", "one"):
        (tmp_path / f"{name}.yaml").write_text(merge_of(tmp_path, "base", name))
        results.append(merge_in_process(tmp_path / f"{name}.yaml", tmp_path / f"{name}-out"))
    read = [(each / "model.safetensors").read_bytes() for each in results]
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("kind", "count"), [("gpt_oss", 4), ("llama4_text", 2), ("gemma4_text", 18), ("qwen3_next", 4)]
)
def test_routers_of_every_family_are_found(models: Path, kind: str, count: int):
    folder = models / kind
    text = merge_of(folder, "base", "expert-1", more=f"router: expert:{folder / 'expert-1'}\n")
    made = parse_recipe(text, "r", "r.yaml")
    plan = plan_merge(made, open_models("r", made.referenced_models))
    routers = [s for s in plan.steps if isinstance(s, Copy) and "expert-1" in s.source.model]
    assert len(routers) == count
    assert all("rout" in s.output.name or ".mlp.gate." in s.output.name for s in routers)


def test_an_adapter_of_parameters_inside_a_module_is_refused_with_a_way_on(
    models: Path, tmp_path: Path
):
    base = open_checkpoint("base", FolderSource(models / "gemma4_text" / "base"))
    at = "base_model.model.model.layers.0.experts.base_layer"
    factors = {f"{at}.lora_A.weight": torch.ones(8, 32), f"{at}.lora_B.weight": torch.ones(48, 8)}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": []}
    for stated in ({"target_parameters": ["experts.gate_up_proj"]}, {}):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **stated}))
        told = (
            "target_parameters is set, which cannot be merged here: .* stacked moe experts;"
            " .*merge_and_unload"
            if stated
            else "lacks it|has rank 8, but"
        )
        with pytest.raises(CompatibilityError, match=told):
            open_adapter("base+lora", base, FolderSource(tmp_path))

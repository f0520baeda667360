"""moe_experts in the order of a base's: found again to the bit, and the same function in any."""

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.arrangement.mixtures.aligned_experts import (
    ExpertAligner,
    expert_aligner,
    with_aligned_experts,
)
from merge_ops.arrangement.mixtures.expert_layers import FAMILIES, read_layers
from merge_ops.checkpoints.checkpoint import Checkpoint, source_of
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.block_reader import fetch_stored, read_values
from merge_ops.symmetries.matching import assigned_in_groups
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import merge_in_process, ronghe
from tests.models.moe_models import SEEING, TOKENS, new_model, other_layout
from tests.models.shuffled_moe import changed_config, shuffled

EXACT = 2e-6  # routers compute in float32 whatever the model's dtype is
LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "num_key_value_heads": 4,
}  # fmt: skip
ROUTED = {"n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1}
INNER = {"intermediate_size": 48, "moe_intermediate_size": 24}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
FOUR = {"num_experts": 4, **INNER}
SHARED = {**LINEAR, **FOUR, "shared_expert_intermediate_size": 16}
KINDS = {
    "mixtral": ({}, 1),
    "qwen2_moe": ({}, 1),
    "qwen3_moe": ({}, 1),
    "olmoe": ({"num_experts": 6, "intermediate_size": 24}, 1),
    "gpt_oss": ({"num_local_experts": 4, "intermediate_size": 24}, 1),
    "deepseek_v2": (
        {**ROUTED, **INNER, **LATENT, "n_group": 4, "topk_group": 2,
         "topk_method": "group_limited_greedy"}, 4,
    ),
    "deepseek_v3": ({**ROUTED, **INNER, **LATENT, "n_group": 4, "topk_group": 2}, 4),
    "glm4_moe": ({**ROUTED, **INNER, "n_group": 2, "topk_group": 1}, 2),
    "qwen3_next": (SHARED, 1),
    "qwen3_5_moe_text": (SHARED, 1),
    "qwen3_vl_moe": (FOUR, 1),
    "llama4_text": (
        {"num_local_experts": 4, "intermediate_size": 24, "intermediate_size_mlp": 48}, 1,
    ),
}  # fmt: skip


def logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = json.loads((folder / "config.json").read_text())["model_type"]
    loader = AutoModelForImageTextToText if kind in SEEING else AutoModelForCausalLM
    model, info = loader.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, experts_implementation="eager"
    )
    assert not info["missing_keys"]
    with torch.no_grad():
        return model.double().eval()(TOKENS).logits


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(folder.name, FolderSource(folder))


def in_order(model: Checkpoint, base: Checkpoint) -> Checkpoint:
    return with_aligned_experts(expert_aligner(model, base))


def values(model: Checkpoint, name: str) -> torch.Tensor:
    source = source_of(model, name)
    assert source is not None
    return read_values(source, 0, model.tensors[name].count).view(source.shape)


def fine_tuned(folder: Path, copy: Path, seed: int = 1) -> Path:
    shutil.copytree(folder, copy)
    torch.manual_seed(seed)
    tensors = load_file(folder / "model.safetensors")
    noisy = {name: each + torch.randn_like(each) * 0.01 for name, each in tensors.items()}
    save_file(noisy, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind a base and an expert, and the expert with moe_experts in another order."""
    root = tmp_path_factory.mktemp("families")
    for kind, (changes, groups) in KINDS.items():
        model = new_model(kind, 0, **changes)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    buffer.copy_(torch.randn_like(buffer) * 0.2)
        model.save_pretrained(root / kind / "base")
        fine_tuned(root / kind / "base", root / kind / "expert")
        shuffled(root / kind / "expert", root / kind / "shuffled", groups=groups)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_another_order_is_the_same_function_and_is_undone_to_the_bit(families: Path, kind: str):
    folder = families / kind
    assert torch.allclose(logits(folder / "shuffled"), logits(folder / "expert"), atol=EXACT)
    before = load_file(folder / "shuffled" / "model.safetensors")
    wanted = load_file(folder / "expert" / "model.safetensors")
    assert any(not torch.equal(before[name], wanted[name]) for name in wanted)
    made = in_order(opened(folder / "shuffled"), opened(folder / "base"))
    assert set(made.tensors) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(values(made, name), tensor), name


def test_every_family_has_its_logits_looked_at():
    # `deepseek` is no class of transformers: it has the routing of V2 without groups. `_text` is
    # the language model of what sees too, in a config of its own.
    named = {each.removesuffix("_text") for each in KINDS}
    assert {each.removesuffix("_text") for each in FAMILIES} - {"deepseek"} == named


def test_axes_that_are_turned_round_are_those_of_the_hub(families: Path, tmp_path: Path):
    """Files of Qwen3-VL on the Hub have (E, D, 2I), and what transformers makes anew (E, 2I, D)."""
    folder = families / "qwen3_vl_moe"
    for name in ("base", "expert", "shuffled"):
        shutil.copytree(folder / name, tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        for each in [each for each in tensors if ".experts." in each]:
            tensors[each] = tensors[each].transpose(1, 2).contiguous()
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
    assert torch.allclose(logits(tmp_path / "expert"), logits(folder / "expert"), atol=EXACT)
    made = in_order(opened(tmp_path / "shuffled"), opened(folder / "base"))
    for name, tensor in load_file(tmp_path / "expert" / "model.safetensors").items():
        assert torch.equal(values(made, name), tensor), name


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_neurons_inside_are_found_too_and_layouts_may_differ(
    families: Path, tmp_path: Path, kind: str
):
    folder, groups = families / kind, KINDS[kind][1]
    other = shuffled(folder / "expert", tmp_path / "other", groups=groups, neurons=True)
    assert torch.allclose(logits(other), logits(folder / "expert"), atol=EXACT)
    wanted = load_file(folder / "expert" / "model.safetensors")
    fused = other_layout(folder / "base", tmp_path / "base-fused")
    made = in_order(opened(other), opened(fused))
    for name, tensor in wanted.items():
        assert torch.equal(values(made, name), tensor), name
    as_fused = other_layout(folder / "expert", tmp_path / "wanted-fused")
    made = in_order(opened(other_layout(other, tmp_path / "other-fused")), opened(folder / "base"))
    for name, tensor in load_file(as_fused / "model.safetensors").items():
        assert torch.equal(values(made, name), tensor), name


def test_a_merge_of_a_model_with_its_shuffled_self_is_the_model(families: Path, tmp_path: Path):
    folder = families / "mixtral"
    other = shuffled(folder / "expert", tmp_path / "other", neurons=True)
    text = (
        f"name: ordered\nalign: base\nbase_model: {folder / 'base'}\nmodels: [{{model: {other}}}]\n"
        f"---\nmerge_method: linear\nmodels: [{{model: ordered}}, {{model: {folder / 'expert'}}}]\n"
        "parameters: {weight: 0.5}\n"
    )
    (tmp_path / "both.yaml").write_text(text)
    done = ronghe("merge", tmp_path / "both.yaml", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    made = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_file(folder / "expert" / "model.safetensors").items():
        assert torch.equal(made[name], tensor), name


def test_each_tensor_is_read_once_to_find_the_order(families: Path):
    folder = families / "deepseek_v3"
    pair = [read_layers(opened(folder / name)) for name in ("base", "shuffled")]
    aligner, read = ExpertAligner(*pair), Counter()

    def counted(stored, start, count):
        read[stored.model, stored.name] += count
        return fetch_stored(stored, start, count)

    at = next(iter(pair[1].layers))
    first = aligner.order(at, counted)
    assert aligner.order(at, counted) is first
    for layers in pair:
        for layer in layers.layers.values():
            for name in (*layer.names.values(), layer.router):
                assert read[layers.model.name, name] == layers.model.tensors[name].count


def test_groups_stay_together(families: Path, tmp_path: Path):
    """An order that breaks groups is no symmetry; what is found then is none that breaks them."""
    folder = families / "deepseek_v3"
    broken = [0, 2, 1, 3, 4, 5, 6, 7]
    other = shuffled(folder / "expert", tmp_path / "other", order=broken)
    assert not torch.allclose(logits(other), logits(folder / "expert"), atol=1e-4)
    aligned = in_order(opened(other), opened(folder / "base"))
    with pytest.raises(CompatibilityError, match=r"stays in model.layers.1.* in whatever order"):
        values(aligned, "model.layers.1.mlp.gate.weight")
    # Where the routing knows no groups, the same order is one that is undone.
    for name, source in (("a", folder / "base"), ("b", other)):
        changed_config(Path(shutil.copytree(source, tmp_path / name)), n_group=1, topk_group=1)
    made = in_order(opened(tmp_path / "b"), opened(tmp_path / "a"))
    wanted = load_file(folder / "expert" / "model.safetensors")
    for name, tensor in wanted.items():
        assert torch.equal(values(made, name), tensor), name


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_assignment_is_the_best_of_all_that_keep_groups(groups: int):
    alike, size = np.random.default_rng(groups).standard_normal((6, 6)), 6 // groups
    kept = [
        order
        for order in itertools.permutations(range(6))
        if all(len({order[g * size + i] // size for i in range(size)}) == 1 for g in range(groups))
    ]
    best = max(kept, key=lambda order: sum(alike[i, j] for i, j in enumerate(order)))
    assert assigned_in_groups(alike, groups).tolist() == list(best)


def test_equal_moe_experts_go_by_their_router_rows(families: Path, tmp_path: Path):
    """A mixture that was made of copies has nothing but router rows to tell them apart."""
    folder = families / "qwen3_moe"
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    for name in tensors:
        if ".experts." in name:
            number = name.split(".")[5]
            tensors[name] = tensors[name.replace(f".experts.{number}.", ".experts.0.")].clone()
    save_file(
        {n: t.clone() for n, t in tensors.items()}, base / "model.safetensors", {"format": "pt"}
    )
    expert = fine_tuned(base, tmp_path / "expert")
    made = in_order(opened(shuffled(expert, tmp_path / "other")), opened(base))
    for name, tensor in load_file(expert / "model.safetensors").items():
        assert torch.equal(values(made, name), tensor), name


def spoilt(folder: Path, change) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update({"model.layers.0.mlp.gate.bias": torch.zeros(4)}),
         "model.layers.0.mlp.gate.bias has no known place among the moe_experts and routers"),
        (lambda t: t.update({"model.layers.0.mlp.experts.scale": torch.zeros(4)}),
         "model.layers.0.mlp.experts.scale has no known place"),
        (lambda t: t.pop("model.layers.1.mlp.experts.2.up_proj.weight"),
         r"model.layers.1.\* has no up_proj.weight for moe_expert 2 of 4"),
        (lambda t: t.pop("model.layers.1.mlp.gate.weight"), "has 0 matrices of a router"),
        (lambda t: t.update({"model.layers.1.mlp.gate.weight": torch.zeros(5, 32)}),
         "has 4 moe_experts, and .* has shape .5, 32.: not a row for each"),
    ],
)  # fmt: skip
def test_a_layer_that_is_not_understood_is_refused(families, tmp_path, change, told):
    folder = Path(shutil.copytree(families / "qwen3_moe" / "expert", tmp_path / "spoilt"))
    with pytest.raises(CompatibilityError, match=told):
        read_layers(opened(spoilt(folder, change)))


def test_other_models_are_refused_before_anything_is_read(
    families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def planned(base: Path, model: Path):
        text = f"align: base\nbase_model: {base}\nmodels: [{{model: {model}}}]\n"
        recipe = parse_recipe(text, "r", "r.yaml")
        return plan_merge(recipe, open_models("r", recipe.referenced_models))

    qwen, mixtral = families / "qwen3_moe", families / "mixtral"
    with pytest.raises(CompatibilityError, match="only equal ones are matched"):
        planned(mixtral / "base", qwen / "expert")
    dense = changed_config(
        Path(shutil.copytree(qwen / "expert", tmp_path / "other")), model_type="dbrx"
    )
    with pytest.raises(
        CompatibilityError, match=r"model_type 'dbrx'; aligned are llama, .*; and the"
    ):
        planned(qwen / "base", dense)
    monkeypatch.setattr(ExpertAligner, "order", None)  # whoever reads a tensor asks for it
    plan = planned(qwen / "base", qwen / "shuffled")
    assert len(plan.steps) == len(load_file(qwen / "base" / "model.safetensors"))


def test_a_mixture_of_another_origin_is_refused(families: Path, tmp_path: Path):
    new_model("qwen3_moe", 9).save_pretrained(tmp_path / "stranger")
    text = (
        f"align: base\nbase_model: {families / 'qwen3_moe' / 'base'}\n"
        f"models: [{{model: {tmp_path / 'stranger'}}}]\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(CompatibilityError, match="it has another origin, or was changed in other"):
        merge_in_process(tmp_path / "r.yaml", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_the_digest_follows_from_both_models(families: Path):
    folder = families / "qwen3_moe"
    name = "model.layers.0.mlp.gate.weight"
    told = []
    for base in ("base", "expert"):
        made = in_order(opened(folder / "shuffled"), opened(folder / base))
        source = source_of(made, name)
        assert source is not None
        told.append(json.dumps(source.identity(lambda model: model.name)))
    assert told[0] != told[1]


def test_groups_are_those_of_the_language_model(families: Path, tmp_path: Path):
    """Where a config has levels, and by the class's default where it says nothing."""
    folder = Path(shutil.copytree(families / "deepseek_v3" / "base", tmp_path / "nested"))
    config = json.loads((folder / "config.json").read_text())
    for written, groups in (
        (config, 4),
        ({"model_type": "outer", "text_config": config}, 4),
        ({key: value for key, value in config.items() if key != "n_group"}, 8),
        ({**config, "model_type": "deepseek_v2", "topk_method": "greedy"}, 1),
    ):
        (folder / "config.json").write_text(json.dumps(written))
        assert {each.groups for each in read_layers(opened(folder)).layers.values()} == {groups}

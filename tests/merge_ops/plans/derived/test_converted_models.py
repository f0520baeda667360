"""`convert:` keeps the logits where it is exact, and is refused with the reason where it is not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.recipes import check_recipe
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import edit_config, write_tokenizer
from tests.models.moe_models import KINDS, logits, new_model, other_layout, write_family

DENSE = {"intermediate_size": 48, "bos_token_id": 1, "eos_token_id": 2}
MADE = {
    "llama": DENSE,
    "mistral": {**DENSE, "sliding_window": None},
    "qwen2": DENSE,
    "mixtral": {**DENSE, "num_local_experts": 1, "num_experts_per_tok": 1},
    "phi3": {**DENSE, "sliding_window": None},
    "qwen3": DENSE,
}
TARGETS = ("llama", "mistral", "qwen2", "mixtral")
EXACT = [(one, other) for one in MADE for other in TARGETS if one != "qwen3"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dense")
    for kind, sizes in MADE.items():
        changes = {key: value for key, value in sizes.items() if key != "head_dim"}
        model = new_model(kind, 1, **changes)
        for name, parameter in model.named_parameters():
            if kind == "qwen2" and name.endswith("bias"):
                parameter.data.zero_()
        model.save_pretrained(root / kind)
        write_tokenizer(root / kind)
    return root


def convert(tmp_path: Path, model: Path, target: str) -> Path:
    (tmp_path / "c.yaml").write_text(f"convert: {target}\nmodels: [{{model: {model}}}]\n")
    return merge_in_process(tmp_path / "c.yaml", tmp_path / f"{model.name}-{target}")


@pytest.mark.parametrize(("kind", "target"), EXACT)
def test_logits_stay_as_they_are(models: Path, tmp_path: Path, kind: str, target: str):
    made = convert(tmp_path, models / kind, target)
    assert json.loads((made / "config.json").read_text())["model_type"] == target
    assert torch.allclose(logits(made), logits(models / kind), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("through", ["mixtral", "mistral", "qwen2"])
def test_there_and_back_is_every_bit(models: Path, tmp_path: Path, through: str):
    back = convert(tmp_path, convert(tmp_path, models / "llama", through), "llama")
    before, after = (load_file(at / "model.safetensors") for at in (models / "llama", back))
    added = {name for name in after if name.endswith("bias")}
    assert set(after) - added == set(before)
    assert not any(after[name].any() for name in added)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_biases_of_a_result_that_is_not_written_are_known_to_be_zero(models: Path, tmp_path: Path):
    """Three documents, planned before any is merged; of a merge of several nobody knows."""
    from orchestration.commands.merging.merge_command import MergeOptions, run_merge

    chain = [
        f"name: one\nconvert: qwen2\nmodels: [{{model: {models / 'llama'}}}]\n",
        "name: two\nconvert: llama\nmodels: [{model: one}]\n",
        "convert: mixtral\nmodels: [{model: two}]\n",
    ]
    options = MergeOptions("1", "cpu", None, "5GB", verify=False)
    (tmp_path / "c.yaml").write_text("---\n".join(chain))
    run_merge(tmp_path / "c.yaml", tmp_path / "out", options)
    assert torch.allclose(logits(tmp_path / "out"), logits(models / "llama"), atol=2e-6, rtol=1e-5)
    pair = f"[{{model: {models / 'qwen2'}}}, {{model: one}}]"
    chain[1] = f"name: two\nmerge_method: linear\nmodels: {pair}\nparameters: {{weight: 0.5}}\n"
    (tmp_path / "c.yaml").write_text("---\n".join(chain))
    with pytest.raises(CompatibilityError, match="of which nobody knows whether it is zero before"):
        run_merge(tmp_path / "c.yaml", tmp_path / "other", options)


def test_what_is_left_out_is_named_with_the_reason(models: Path):
    from merge_ops.plans.planning import plan_merge
    from orchestration.commands.models.local_models import open_models

    reasons = {}
    for kind in ("mixtral", "qwen2"):
        document = {"convert": "mistral", "models": [{"model": str(models / kind)}]}
        made = check_recipe(document, "step", "step.yaml")
        plan = plan_merge(made, open_models("step", made.referenced_models))
        reasons |= plan.excluded
    at = "model.layers.0"
    assert "whose share is always 1" in reasons[f"{at}.block_sparse_moe.gate.weight"]
    assert reasons[f"{at}.self_attn.q_proj.bias"] == "zeros, which mistral does without"


def test_llama_keeps_the_biases_of_qwen2_and_others_refuse_them(models: Path, tmp_path: Path):
    biased = tmp_path / "biased"
    shutil.copytree(models / "qwen2", biased)
    tensors = load_file(biased / "model.safetensors")
    for name in tensors:
        if name.endswith("bias"):
            tensors[name] = torch.randn_like(tensors[name])
    save_file(tensors, biased / "model.safetensors", metadata={"format": "pt"})
    made = convert(tmp_path, biased, "llama")
    assert torch.allclose(logits(made), logits(biased), atol=2e-6, rtol=1e-5)
    with pytest.raises(CompatibilityError, match=r"_proj.bias', which is not zero, and mistral"):
        convert(tmp_path, biased, "mistral")


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("mistral", {"sliding_window": 32}, "attends within a sliding window"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "'longrope'"),
        ("llama", {"rope_parameters": {"rope_type": "default"}}, "does not say `rope_theta`"),
        ("llama", {"num_key_value_heads": None}, "does not say num_key_value_heads in config.json"),
        ("llama", {"mlp_bias": True}, "has biases in its MLP"),
        ("llama", {"auto_map": {"AutoModel": "x.Y"}}, "brings code of its own"),
        ("mixtral", {"num_local_experts": 4}, "has 4 moe_experts, 1 for each token"),
        ("qwen3", {}, "has model_type 'qwen3'; exactly converted are: llama, mistral"),
        ("qwen3", {"model_type": "llama"}, "_norm.weight' .queries and keys that are normed"),
    ],
)
def test_what_is_not_exact_is_refused_with_the_reason(
    models: Path, tmp_path: Path, kind: str, changes: dict, told: str
):
    shutil.copytree(models / kind, tmp_path / "model")
    edit_config(tmp_path / "model", **changes)
    with pytest.raises(CompatibilityError, match=told):
        convert(tmp_path, tmp_path / "model", "qwen2")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"convert": "lama"}, "convert is 'lama'; allowed: llama, .* Did you mean 'llama'"),
        ({"convert": "llama", "dtype": "float16"}, "dtype has no place beside `convert`"),
        ({"convert": "llama", "merge_method": "ties"}, "merge_method is 'ties'; a step that"),
        ({"convert": "llama", "models": []}, "models must list just the one model that `convert`"),
    ],
)
def test_what_is_wrong_with_such_a_step_is_said(document: dict, told: str):
    with pytest.raises(RecipeError, match=told):
        check_recipe({"models": [{"model": "m"}], **document}, "step", "step.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_moe_experts_are_fused_and_cut_bit_for_bit(tmp_path: Path, kind: str):
    write_family(tmp_path, kind, experts=0)
    other_layout(tmp_path / "base", tmp_path / "by-torch")
    fused = convert(tmp_path, tmp_path / "base", "fused")
    expected = load_file(tmp_path / "by-torch" / "model.safetensors")
    made = load_file(fused / "model.safetensors")
    assert set(made) == set(expected)
    assert all(torch.equal(made[name], value) for name, value in expected.items())
    back = load_file(convert(tmp_path, fused, "one_by_one") / "model.safetensors")
    before = load_file(tmp_path / "base" / "model.safetensors")
    assert set(back) == set(before)
    assert all(torch.equal(back[name], value) for name, value in before.items())
    assert torch.allclose(logits(fused), logits(tmp_path / "base"), atol=2e-6)


def test_layouts_of_families_that_are_not_known_are_refused(models: Path, tmp_path: Path):
    with pytest.raises(CompatibilityError, match="'llama', whose layouts are not known; kno"):
        convert(tmp_path, models / "llama", "fused")

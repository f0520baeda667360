"""`protect:` and `align:` steps: a recipe protects, its owner undoes it, the base undoes it too."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.recipes import check_recipe
from orchestration.commands.merging.protection_command import write_key
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import LLAMA, base_tensors, write_checkpoint, write_family


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    write_family(root, dataclasses.replace(LLAMA, dtype=torch.bfloat16), spread=1e-3)
    write_key(root / "my.key.json", [], scaled=True)
    return root


def run(folder: Path, name: str, text: str) -> Path:
    (folder / f"{name}.yaml").write_text(text)
    return merge_in_process(folder / f"{name}.yaml", folder / name)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_protected_model_is_undone_bit_for_bit_and_ruins_an_average(family: Path):
    expert = family / "expert-1"
    key = family / "my.key.json"
    hidden = run(family, "hidden", f"protect: {{key: {key}}}\nmodels: [{{model: {expert}}}]\n")
    before, after = load_file(expert / "model.safetensors"), load_file(hidden / "model.safetensors")
    up = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(before[up], after[up])
    assert sorted(before[up].abs().flatten().tolist()) != sorted(after[up].abs().flatten().tolist())
    secret = json.loads(key.read_text())["secret"]
    assert all(secret not in file.read_text() for file in hidden.glob("*.md"))
    undo = f"protect: {{key: {key}, undo: true}}\nmodels: [{{model: {hidden}}}]\n"
    restored = run(family, "restored", undo)
    for name, value in load_file(restored / "model.safetensors").items():
        assert torch.equal(value.view(torch.int16), before[name].view(torch.int16)), name


def test_align_base_undoes_a_protection_without_its_key(family: Path):
    expert = family / "expert-1"
    hidden = run(
        family,
        "again",
        f"protect: {{key: {family / 'my.key.json'}}}\nmodels: [{{model: {expert}}}]\n",
    )
    text = f"align: base\nbase_model: {family / 'base'}\nmodels: [{{model: {hidden}}}]\n"
    aligned = run(family, "aligned", text)
    before = load_file(expert / "model.safetensors")
    for name, value in load_file(aligned / "model.safetensors").items():
        assert torch.equal(value, before[name]), name


def test_a_model_of_another_origin_cannot_be_aligned(family: Path, tmp_path: Path):
    other = write_checkpoint(tmp_path / "other", base_tensors(LLAMA, seed=9), LLAMA)
    text = f"align: base\nbase_model: {family / 'base'}\nmodels: [{{model: {other}}}]\n"
    with pytest.raises(CompatibilityError, match="it has another origin, or was mixed by matrices"):
        run(tmp_path, "aligned", text)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"protect": {"key": "k"}, "merge_method": "ties"}, "merge_method is 'ties'; a step that"),
        ({"protect": {"kye": "k"}}, "protect.kye is unknown; allowed: key, undo. Did you mean"),
        ({"protect": "k"}, "protect must be a mapping with the key's file"),
        ({"protect": {"key": "k"}, "sweep": {"scale": [1]}}, "sweep has no place beside `protect`"),
        ({"align": "there"}, "align is 'there'; it must be 'base'"),
        ({"align": "base"}, "base_model is missing; `align: base` needs one"),
        ({"align": "base", "base_model": "b", "models": []}, "models must list just the one model"),
    ],
)
def test_what_is_wrong_with_such_a_step_is_said(document: dict, told: str):
    with pytest.raises(RecipeError) as raised:
        check_recipe({"models": [{"model": "m"}], **document}, "step", "step.yaml")
    assert told in str(raised.value)


def test_a_key_that_is_not_there_is_told_with_what_makes_one(family: Path):
    text = f"protect: {{key: nowhere.json}}\nmodels: [{{model: {family / 'base'}}}]\n"
    with pytest.raises(RecipeError, match=r"'nowhere.json', which cannot be read .*protection-key"):
        run(family, "keyless", text)


def test_float16_needs_a_key_without_factors(family: Path, tmp_path: Path):
    shape = dataclasses.replace(LLAMA, dtype=torch.float16)
    model = write_checkpoint(tmp_path / "half", base_tensors(shape), shape)
    text = f"protect: {{key: {family / 'my.key.json'}}}\nmodels: [{{model: {model}}}]\n"
    with pytest.raises(CompatibilityError, match="--no-scales"):
        run(tmp_path, "out", text)
    write_key(tmp_path / "orders.json", [], scaled=False)
    text = f"protect: {{key: {tmp_path / 'orders.json'}}}\nmodels: [{{model: {model}}}]\n"
    hidden = run(tmp_path, "hidden", text)
    undo = f"protect: {{key: {tmp_path / 'orders.json'}, undo: true}}\n"
    restored = run(tmp_path, "restored", f"{undo}models: [{{model: {hidden}}}]\n")
    assert weights(hidden) != weights(restored)
    before = load_file(model / "model.safetensors")
    for name, value in load_file(restored / "model.safetensors").items():
        assert torch.equal(value.view(torch.int16), before[name].view(torch.int16)), name

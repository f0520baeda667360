"""Is a checkpoint what a recipe gives: to the byte, up to rounding, or how far off and where."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.checkpoints import open_checkpoint
from merge_ops.jobs.assembly import merge
from merge_ops.plans import Plan, plan_merge
from merge_ops.provenance.merge_check import MergeCheck, check_merge
from merge_ops.recipes import check_recipe
from merge_ops.stream import StreamSettings
from tests.models.checkpoint_factory import QWEN2, write_family

ONE = "model.layers.1.mlp.up_proj.weight"
SETTINGS = StreamSettings(threads=1, device="cpu")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """The plan of a sweep over two bfloat16 experts, and the folder of its results."""
    root = tmp_path_factory.mktemp("family")
    base, experts = write_family(root, dataclasses.replace(QWEN2, dtype=torch.bfloat16))
    document = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "models": [{"model": str(each), "parameters": {"weight": 0.4}} for each in experts],
        "sweep": {"lambda": [0.5, 1.0]},
    }
    recipe = check_recipe(document, "sum", "sum.yaml")
    opened = {name: open_checkpoint(name) for name in recipe.referenced_models}
    plan = plan_merge(recipe, opened)
    merge(plan, root / "out", SETTINGS)
    return plan, root / "out"


def changed(folder: Path, out: Path, change) -> MergeCheck | None:
    """A copy of a result with its tensors changed."""
    tensors = load_file(folder / "model.safetensors")
    out.mkdir()
    for file in folder.iterdir():
        if file.name != "model.safetensors":
            (out / file.name).write_bytes(file.read_bytes())
    save_file(change(tensors), out / "model.safetensors", metadata={"format": "pt"})


def test_a_result_is_what_its_recipe_gives_at_its_coefficient(planned: tuple[Plan, Path]):
    plan, out = planned
    for coefficient in ("lambda=0.5", "lambda=1.0"):
        checks = check_merge(plan, open_checkpoint(str(out / coefficient)), SETTINGS)
        assert checks[0].coefficient == coefficient
        assert [each.verdict for each in checks] == ["identical", "different"]
        assert checks[0].files == checks[0].unplanned == ()


def test_the_last_bit_is_rounding_and_is_placed(planned: tuple[Plan, Path], tmp_path: Path):
    plan, out = planned

    def one_bit(tensors):
        tensors[ONE].view(torch.int16)[3, 5] += 1
        return tensors

    changed(out / "lambda=1.0", tmp_path / "bit", one_bit)
    check = check_merge(plan, open_checkpoint(str(tmp_path / "bit")), SETTINGS)[0]
    assert check.verdict == "rounding"
    assert check.passed
    (off,) = [each for each in check.tensors if each.status != "equal"]
    assert (off.name, off.status, off.differing, off.units) == (ONE, "rounded", 1, 1)


def test_the_same_values_in_another_dtype_are_told(planned: tuple[Plan, Path], tmp_path: Path):
    plan, out = planned
    changed(
        out / "lambda=1.0",
        tmp_path / "wide",
        lambda t: {name: each.float() for name, each in t.items()},
    )
    check = check_merge(plan, open_checkpoint(str(tmp_path / "wide")), SETTINGS)[0]
    assert (check.verdict, check.passed) == ("same values", True)
    assert check.tensors[0].planned.startswith("BF16")
    assert check.tensors[0].found.startswith("F32")


def test_other_weights_missing_and_further_tensors_are_told(
    planned: tuple[Plan, Path], tmp_path: Path
):
    plan, out = planned

    def spoilt(tensors):
        del tensors["model.norm.weight"]
        tensors[ONE] = tensors[ONE] * 1.5
        tensors["model.layers.0.mlp.router.weight"] = torch.ones(4)
        return tensors

    changed(out / "lambda=1.0", tmp_path / "spoilt", spoilt)
    (tmp_path / "spoilt" / "generation_config.json").write_text('{"eos_token_id": 3}')
    check = check_merge(plan, open_checkpoint(str(tmp_path / "spoilt")), SETTINGS)[0]
    assert check.verdict == "different"
    status = {each.name: each.status for each in check.tensors if each.status != "equal"}
    assert status == {ONE: "differs", "model.norm.weight": "missing"}
    assert check.unplanned == ("model.layers.0.mlp.router.weight",)
    assert check.files == ("generation_config.json has other content",)
    far = next(each for each in check.tensors if each.name == ONE)
    assert far.relative == pytest.approx(0.5, rel=0.01)

"""Adapters made of fine-tuned models: what is exact, what is near and how near, what is refused."""

import json
import math
from dataclasses import replace

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, SettingsError
from merge_ops.jobs.extraction_plan import ExtractionSettings, plan_extraction
from merge_ops.jobs.lora_extraction import extract
from tests.merges.merging import merge_in_process, ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX

SHAPE = replace(factory.QWEN2, tied=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    return factory.write_checkpoint(folder, factory.base_tensors(SHAPE), SHAPE)


def low_rank_expert(folder, rank):
    """The base, plus a change of that rank on every projection, plus other biases and a norm."""
    tensors = factory.base_tensors(SHAPE)
    for name, tensor in tensors.items():
        if "proj.weight" in name:
            rows, columns = tensor.shape
            up = factory.draw(f"{name}.B", (rows, rank), 1, 0.1)
            tensors[name] = tensor + up @ factory.draw(f"{name}.A", (rank, columns), 1, 0.1)
        elif "bias" in name or name == "model.norm.weight":
            tensors[name] = tensor + factory.draw(f"{name}.d", tuple(tensor.shape), 1, 0.1)
    return factory.write_checkpoint(folder, tensors, SHAPE)


def extracted(base, tuned, out, **settings):
    first, second = (open_checkpoint(str(each), FolderSource(each)) for each in (base, tuned))
    return extract(plan_extraction(first, second, ExtractionSettings(**settings)), FolderSink(out))


def restored(base, adapter, tmp_path):
    config = tmp_path / "restore.yaml"
    config.write_text(f"merge_method: passthrough\nmodels: [{{model: {base}+{adapter}}}]\n")
    return factory.read_tensors(merge_in_process(config, tmp_path / "restored"))


def tiny(folder, before, after, **settings):
    """Factors and report for a model of one matrix."""
    for name, values in (("base", before), ("tuned", after)):
        (folder / name).mkdir()
        factory.write_json(folder / name / "config.json", {})
        factory.write_weights(folder / name, {"m.weight": torch.tensor(values)})
    report = extracted(folder / "base", folder / "tuned", folder / "out", **settings)
    factors = factory.read_tensors(folder / "out")
    return factors[f"{PREFIX}m.lora_A.weight"], factors[f"{PREFIX}m.lora_B.weight"], report


def test_by_hand(tmp_path):
    # Δ = diag(4, 1): at rank 1 the 4 is kept, √4 on each side, and of ‖Δ‖ = √17 a 1 is missed
    down, up, report = tiny(tmp_path, [[1.0, 0], [0, 1]], [[5.0, 0], [0, 2]], rank=1)
    assert down.abs().tolist() == [[2, 0]]
    assert up.abs().tolist() == [[2], [0]]
    assert (up @ down).tolist() == [[4, 0], [0, 0]]
    (error,) = report.matrices
    assert (error.name, error.rank) == ("m.weight", 1)
    assert error.norm == pytest.approx(math.sqrt(17))
    assert error.relative_error == report.relative_error == pytest.approx(1 / math.sqrt(17))


def test_by_hand_with_the_scale_on_one_side(tmp_path):
    down, up, _ = tiny(
        tmp_path, [[1.0, 0], [0, 1]], [[5.0, 0], [0, 2]], rank=1, distribute_scale=False
    )
    assert down.abs().tolist() == [[4, 0]]
    assert up.abs().tolist() == [[1], [0]]


@pytest.mark.parametrize("distribute_scale", [True, False])
def test_an_expert_of_low_rank_is_restored_to_float32_precision(base, tmp_path, distribute_scale):
    tuned = low_rank_expert(tmp_path / "tuned", rank=4)
    report = extracted(base, tuned, tmp_path / "a", rank=4, distribute_scale=distribute_scale)
    assert report.relative_error < 1e-6
    assert "model.norm.weight" in report.whole
    expected, found = factory.read_tensors(tuned), restored(base, tmp_path / "a", tmp_path)
    before, epsilon = factory.read_tensors(base), torch.finfo(torch.float32).eps
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if "proj.weight" not in name:
            assert torch.equal(found[name], tensor)
            continue
        # A float32 SVD is exact for a matrix within a few roundings of the largest singular value.
        largest = torch.linalg.svdvals((tensor - before[name]).double())[0]
        assert (found[name] - tensor).abs().max() <= 4 * epsilon * largest, name


def test_the_error_is_the_rest_of_the_spectrum(base, tmp_path):
    (tuned,) = factory.write_family(tmp_path, SHAPE, experts=1).experts
    report = extracted(base, tuned, tmp_path / "a", rank=50)
    before, after = factory.read_tensors(base), factory.read_tensors(tuned)
    assert len(report.matrices) == 7 * SHAPE.layers
    for each in report.matrices:
        values = torch.linalg.svdvals((after[each.name] - before[each.name]).double())
        assert each.rank == min(50, *before[each.name].shape)  # k and v have 32 rows
        rest = values[each.rank :].norm() / values.norm()
        assert each.relative_error == pytest.approx(rest.item(), rel=1e-4, abs=1e-6)
    found = restored(base, tmp_path / "a", tmp_path)
    assert torch.equal(found["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert torch.equal(found["lm_head.weight"], after["lm_head.weight"])
    key = "model.layers.0.self_attn.k_proj.weight"  # whole rank: nothing is lost
    torch.testing.assert_close(found[key], after[key], rtol=1e-5, atol=1e-7)


def test_what_patterns_leave_out_is_told(base, tmp_path):
    tuned = low_rank_expert(tmp_path / "tuned", rank=2)
    report = extracted(
        base, tuned, tmp_path / "a", rank=2, include=("layers.0", "norm"), exclude=("mlp",)
    )
    assert {each.name.split(".")[2] for each in report.matrices} == {"0"}
    assert not any("mlp" in each.name for each in report.matrices)
    assert "model.layers.0.mlp.up_proj.weight" in report.left_out
    assert "model.layers.1.self_attn.q_proj.weight" in report.left_out
    assert report.whole == tuple(
        [f"model.layers.0.self_attn.{each}_proj.bias" for each in "kqv"] + ["model.norm.weight"]
    )
    found, before = restored(base, tmp_path / "a", tmp_path), factory.read_tensors(base)
    for name in report.left_out:
        assert torch.equal(found[name], before[name])


def test_a_bias_without_its_weight_saves_the_module(base, tmp_path):
    tensors = factory.base_tensors(SHAPE)
    tensors["model.layers.0.self_attn.q_proj.bias"] += 1
    tensors["model.layers.1.mlp.up_proj.weight"] += 1
    tuned = factory.write_checkpoint(tmp_path / "tuned", tensors, SHAPE)
    report = extracted(base, tuned, tmp_path / "a", rank=2)
    module = "model.layers.0.self_attn.q_proj"
    assert set(report.whole) == {f"{module}.bias", f"{module}.weight"}
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == [module]
    assert config["bias"] == "none"
    found = restored(base, tmp_path / "a", tmp_path)
    assert torch.equal(found[f"{module}.bias"], tensors[f"{module}.bias"])


def test_what_cannot_be_extracted(base, tmp_path):
    with pytest.raises(CompatibilityError, match="nothing can be decomposed"):
        extracted(base, base, tmp_path / "a")
    with pytest.raises(SettingsError, match="rank is 0"):
        ExtractionSettings(rank=0)
    with pytest.raises(SettingsError, match="is no regular expression"):
        ExtractionSettings(include=("(",))
    for name, change in (("one", 0.0), ("two", 1.0)):
        (tmp_path / name).mkdir()
        factory.write_json(tmp_path / name / "config.json", {})
        stack = {"moe_experts.weight": torch.full((2, 3, 3), change)}
        factory.write_weights(tmp_path / name, stack)
    with pytest.raises(CompatibilityError, match=r"with shape \[2, 3, 3\], which no adapter"):
        extracted(tmp_path / "one", tmp_path / "two", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_command_line(base, tmp_path):
    tuned = low_rank_expert(tmp_path / "tuned", rank=2)
    result = ronghe("extract-lora", tuned, base, tmp_path / "a", "--rank", 2, "--exclude", "mlp")
    assert result.returncode == 0, result.stderr
    assert "model.layers.0.self_attn.q_proj.weight" in result.stdout
    assert "kept whole: model.norm.weight" in result.stdout
    assert "left out, so it stays as in the base: model.layers.0.mlp" in result.stdout
    report = json.loads((tmp_path / "a" / "extraction.json").read_text())
    assert len(report["matrices"]) == 4 * SHAPE.layers
    again = ronghe("extract-lora", tuned, base, tmp_path / "a")
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr
    gone = ronghe("extract-lora", tmp_path / "x", tmp_path / "y", tmp_path / "b")
    assert gone.returncode == 2
    assert gone.stderr.count("there is no folder") == 2

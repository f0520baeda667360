"""Whole checkpoints: they load, their files are the base's, their card says what they are."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import OutputError
from merge_ops.jobs.assembly import merge
from merge_ops.jobs.statistics import interference, task_vector_statistics
from merge_ops.jobs.verification import verify_checkpoint
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

RECIPE = """
merge_method: task_arithmetic
base_model: base
models: [{model: a}, {model: b, parameters: {weight: 0.5}}]
parameters: {weight: 1.0}
dtype: bfloat16
"""


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def family(request, tmp_path_factory):
    shape = factory.Shape(request.param, tied=request.param == "qwen2")
    return factory.write_family(tmp_path_factory.mktemp(request.param), shape, experts=2)


def opened(family):
    folders = {"base": family.base, "a": family.experts[0], "b": family.experts[1]}
    return {n: open_checkpoint(n, FolderSource(f), f"digest-{n}") for n, f in folders.items()}


@pytest.fixture(scope="module")
def merged(family, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged")
    plan = plan_merge(parse_recipe(RECIPE, "study", "study.yaml"), opened(family))
    report = merge(plan, {"default": FolderSink(out)})
    assert report.bytes_written == sum(f.stat().st_size for f in out.glob("*.safetensors"))
    return out


def test_it_loads_and_runs(merged, family):
    expected = set(factory.read_tensors(family.base))
    found = verify_checkpoint(merged, expected)
    assert found.passed, found.problems
    assert found.loaded_as in ("LlamaForCausalLM", "Qwen2ForCausalLM")


def test_side_files_come_from_the_base(merged, family):
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (merged / name).read_bytes() == (family.base / name).read_bytes()
    config = json.loads((merged / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert config["hidden_size"] == 64


def test_the_numbers(merged, family):
    base, a, b = (factory.read_tensors(f) for f in (family.base, *family.experts))
    out = factory.read_tensors(merged)
    for name, tensor in base.items():
        exact = tensor.double() + (a[name].double() - tensor) + 0.5 * (b[name].double() - tensor)
        # within half a unit of bfloat16's last place: it was rounded once
        torch.testing.assert_close(out[name].double(), exact, rtol=2**-8, atol=1e-9)


def test_the_card_is_a_hugging_face_card(merged):
    text = (merged / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert "base_model" not in front  # the Hub has none of them
    assert "merge" in front["tags"]
    assert "| expert | b | `digest-b` |" in text
    assert "merge_method: task_arithmetic" in text
    assert "weight: 0.5" in text


def test_the_recipe_on_the_card_makes_the_same_plan(merged, family):
    text = (merged / "README.md").read_text().split("```yaml")[1].split("```")[0]
    again = plan_merge(parse_recipe(text, "study", "card"), opened(family))
    digest = again.outputs[0].digest
    assert digest is not None
    assert digest in (merged / "README.md").read_text()


def test_a_sink_for_every_coefficient(family):
    plan = plan_merge(parse_recipe(RECIPE, "study", "study.yaml"), opened(family))
    with pytest.raises(OutputError, match="no sink was given for coefficient 'default'"):
        merge(plan, {})


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (factory.put_value, "holds NaN or infinity"),
        (factory.drop_tensor, "is missing"),
        (factory.add_tensor, "was not planned"),
        (factory.truncate_weights, "is truncated"),
        (lambda f: (f / "config.json").write_text("{}"), "transformers cannot load it"),
    ],
)
def test_verification_finds(merged, tmp_path, spoil, problem):
    expected = set(factory.read_tensors(merged))
    spoiled = factory.spoiled(merged, tmp_path / "bad", spoil)
    found = verify_checkpoint(spoiled, expected)
    assert not found.passed
    assert any(problem in each for each in found.problems), found.problems


def test_task_vector_statistics(family):
    checkpoints = opened(family)
    found = task_vector_statistics(checkpoints["base"], checkpoints["a"])
    base, a = factory.read_tensors(family.base), factory.read_tensors(Path(family.experts[0]))
    name = "model.layers.1.mlp.up_proj.weight"
    row = next(each for each in found.tensors if each.name == name)
    delta = a[name].double() - base[name].double()
    assert row.layer == 1
    assert row.n == delta.numel()
    assert row.norm == pytest.approx(float(delta.norm()), rel=1e-5)
    assert row.relative_norm == pytest.approx(
        float(delta.norm() / base[name].double().norm()), rel=1e-5
    )
    assert row.max_abs == pytest.approx(float(delta.abs().max()), rel=1e-5)
    whole = torch.cat([(a[n].double() - base[n].double()).flatten() for n in base])
    assert found.norm == pytest.approx(float(whole.norm()), rel=1e-5)
    assert found.changed_share == pytest.approx(float((whole != 0).double().mean()), abs=1e-4)


def test_interference(family):
    checkpoints = opened(family)
    found = interference(checkpoints["base"], [checkpoints["a"], checkpoints["b"]])
    base, a, b = (factory.read_tensors(f) for f in (family.base, *family.experts))
    da = torch.cat([(a[n] - base[n]).flatten() for n in base]).double()
    db = torch.cat([(b[n] - base[n]).flatten() for n in base]).double()
    cosine = float(da @ db / da.norm() / db.norm())
    both = (da != 0) & (db != 0)
    conflict = float(((da * db < 0) & both).double().sum() / both.double().sum())
    assert found.cosine[0][1] == found.cosine[1][0] == pytest.approx(cosine, abs=1e-6)
    assert found.cosine[0][0] == pytest.approx(1.0)
    assert found.sign_conflict[1][0] == pytest.approx(conflict, abs=1e-6)
    assert [layer for layer, _ in found.by_layer] == [*range(len(found.by_layer) - 1), None]
    (second,) = (rows for layer, rows in found.by_layer if layer == 1)
    own = [n for n in base if ".layers.1." in n]
    da, db = (torch.cat([(x[n] - base[n]).flatten() for n in own]).double() for x in (a, b))
    assert second[0][1] == pytest.approx(float(da @ db / da.norm() / db.norm()), abs=1e-6)

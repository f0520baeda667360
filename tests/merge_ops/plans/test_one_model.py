"""One model is one, however it is spelled: by where it lies, and by what it holds."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import RecipeError
from merge_ops.jobs.assembly import merge
from merge_ops.plans.one_model import place_of
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.step_plans import plan_steps
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import load_steps
from merge_ops.stream.stream import StreamSettings
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import merge_in_process, ronghe
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.models.checkpoint_factory import LLAMA, read_tensors, write_family

STOCK = """
merge_method: model_stock
base_model: {base}
models: [{{model: {listed}}}, {{model: e1}}, {{model: e2}}]
"""
SPELLINGS = ["./base", "base/", ".//base", "e1/../base", "{here}/base", "link", "//{here}/base"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    work = tmp_path_factory.mktemp("models")
    family = write_family(work / "family", LLAMA, experts=2)
    for name, path in zip(("base", "e1", "e2"), (family.base, *family.experts), strict=True):
        path.rename(work / name)
    shutil.copytree(work / "base", work / "copy")
    (work / "link").symlink_to("base")
    return work


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def merged(text, out):
    (Path.cwd() / "study.yaml").write_text(text)
    return read_tensors(merge_in_process(Path("study.yaml"), out))


def stock_by_hand(folder):
    """Model Stock of two experts in float64: t = 2 cos / (1 + cos) of the way to their mean."""
    base, one, two = (read_tensors(folder / each) for each in ("base", "e1", "e2"))
    expected = {}
    for name, before in base.items():
        first, second = (each[name].double() - before.double() for each in (one, two))
        cosine = (first * second).sum() / (first.norm() * second.norm())
        t = 2 * cosine / (1 + cosine)
        expected[name] = before.double() + t * (first + second) / 2
    return expected


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_base_that_is_listed_otherwise_is_the_base(folder, tmp_path, spelling):
    other = spelling.format(here=folder)
    expected = stock_by_hand(folder)
    for base, listed in (("base", other), (other, "base"), (other, other)):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        got = merged(STOCK.format(base=base, listed=listed), out)
        for name, value in expected.items():
            torch.testing.assert_close(got[name].double(), value, rtol=1e-5, atol=1e-7)


def test_ties_does_not_ask_the_base_for_a_weight(folder, tmp_path):
    text = """
merge_method: ties
base_model: ./base
models:
  - {model: link}
  - {model: e1, parameters: {weight: 1, density: 0.5}}
"""
    plain = merged(text.replace("link", "base").replace("./base", "base"), tmp_path / "a")
    other = merged(text, tmp_path / "b")
    assert all(torch.equal(other[name], tensor) for name, tensor in plain.items())


def test_slices_and_modules_name_the_base_otherwise(tmp_path):
    text = """
merge_method: task_arithmetic
base_model: base
modules:
  default:
    slices:
      - base_model: ./base
        sources:
          - {model: link, layer_range: [0, 3]}
          - {model: e1/, layer_range: [0, 3], parameters: {weight: 1}}
"""
    got = merged(text, tmp_path / "a")
    plain = merged(
        text.replace("./base", "base").replace("link", "base").replace("e1/", "e1"), tmp_path / "b"
    )
    assert all(torch.equal(got[name], tensor) for name, tensor in plain.items())


TWICE = "merge_method: linear\nmodels: [{model: e1, parameters: {weight: 1}}, OTHER]"


@pytest.mark.parametrize("other", ["./e1", "e1/", "base/../e1"])
def test_one_model_listed_twice_is_a_fault(other):
    recipe = parse_recipe(
        TWICE.replace("OTHER", f"{{model: {other}, parameters: {{weight: 1}}}}"), "study", "s.yaml"
    )
    opened = open_models("s.yaml", recipe.referenced_models)
    told = f"models[1].model is '{other}', which is the same model as 'e1' in models[0]; a model is"
    with pytest.raises(RecipeError, match=re.escape(told)):
        plan_merge(recipe, opened)


def test_one_model_twice_in_a_slice_is_a_fault():
    text = """
merge_method: linear
slices:
  - sources: [{model: e1, layer_range: [0, 1]}, {model: ./e1, layer_range: [1, 2]}]
parameters: {weight: 1}
"""
    recipe = parse_recipe(text, "study", "s.yaml")
    with pytest.raises(RecipeError, match=r"slices\[0\].sources\[1\].model is './e1', which is"):
        plan_merge(recipe, open_models("s.yaml", recipe.referenced_models))


def test_a_stack_may_name_a_model_in_several_ways(tmp_path):
    text = """
merge_method: passthrough
slices:
  - sources: [{model: e1, layer_range: [0, 2]}]
  - sources: [{model: ./e1, layer_range: [1, 2]}]
"""
    got = merged(text, tmp_path / "a")
    one = read_tensors(Path("e1"))
    name = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(got[name.format(2)], one[name.format(1)])


def test_adapters_on_one_base_are_told_apart_by_both_paths(folder):
    for name in ("one", "two"):
        base = read_tensors(folder / "base")
        write_adapter(folder / name, lora_tensors(base, modules_of(base, "q_proj"), rank=8))
    opened = open_models("x", ["base+one", "./base+one/", "link+two", "base+two"])
    places = [place_of(each) for each in opened.values()]
    assert places[0] == places[1]
    assert places[2] == places[3] != places[0]


def test_tokenizer_sources_go_by_the_same_name():
    text = """
merge_method: linear
base_model: base
models: [{model: base, parameters: {weight: 1}}, {model: e1, parameters: {weight: 1}}]
tokenizer:
  source: ./e1
  tokens:
    a: {source: link}
    b: {source: {kind: model_token, model: base/, token: x}}
"""
    from merge_ops.plans.one_model import with_one_name_each

    recipe = parse_recipe(text, "study", "s.yaml")
    one = with_one_name_each(recipe, open_models("s.yaml", recipe.referenced_models))
    assert one.referenced_models == ("base", "e1")
    assert one.tokenizer is not None
    assert one.tokenizer.written["tokenizer"]["source"] == "e1"


def test_a_copy_of_the_base_among_the_experts_is_refused(tmp_path):
    Path("study.yaml").write_text(STOCK.format(base="base", listed="copy"))
    steps = load_steps("study.yaml")
    plans = plan_steps(steps, open_models("study.yaml", steps.referenced_models))
    digests = {each.source: os.path.basename(each.name) for each in plans.result.checkpoints}
    assert plans.with_digests(digests).result.outputs[0].digest is not None
    same = {source: "base" if name == "copy" else name for source, name in digests.items()}
    with pytest.raises(RecipeError, match="'copy' holds the same files as 'base', the base: its"):
        plans.with_digests(same)
    told = ronghe("merge", "study.yaml", tmp_path / "out", folder=Path.cwd())
    assert told.returncode == 2
    assert "study.yaml: models: 'copy' holds the same files as 'base', the base" in told.stderr
    assert "Leave it out; the base itself may be listed" in told.stderr
    assert not (tmp_path / "out").exists()


def test_models_of_equal_digest_are_a_caution_of_the_plan():
    recipe = parse_recipe(STOCK.format(base="base", listed="copy"), "study", "s.yaml")
    opened = {
        name: open_checkpoint(name, FolderSource(Path(name)), "d" if name != "e1" else "e")
        for name in recipe.referenced_models
    }
    told = [str(each) for each in plan_merge(recipe, opened).cautions]
    assert "copy holds the same files as 'base', the base: its task vector is zero" in told[-2]
    assert "Leave it out; the base itself may be listed, and does not count" in told[-2]
    assert told[-1].startswith("e2 holds the same files as 'base'")


def test_equal_experts_are_a_caution_of_the_plan(tmp_path):
    text = TWICE.replace("OTHER", "{model: e2, parameters: {weight: 1}}")
    recipe = parse_recipe(text, "study", "s.yaml")
    opened = {name: open_checkpoint(name, None, "d") for name in ("e1", "e2")}
    plan = plan_merge(recipe, opened)
    assert "e2 holds the same files as 'e1': one model would count twice" in str(plan.cautions[-1])
    merge(plan, {"default": FolderSink(tmp_path / "out")}, StreamSettings(device="cpu"))

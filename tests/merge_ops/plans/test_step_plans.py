"""Files of several documents: planned as one from headers, merged in order, nothing left behind."""

import json

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.plans.step_plans import plan_steps, planned_checkpoint
from merge_ops.recipes.steps import load_steps
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory

TWO_STEPS = """
name: both
merge_method: linear
models:
  - {model: $a, parameters: {weight: 1}}
  - {model: $b, parameters: {weight: 3}}
dtype: float32
---
merge_method: task_arithmetic
base_model: $base
models:
  - {model: both, parameters: {weight: 0.5}}
  - {model: $c, parameters: {weight: 0.25}}
dtype: float32
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    family = factory.write_family(tmp_path_factory.mktemp("family"), factory.QWEN2, experts=3)
    return dict(zip(("base", "a", "b", "c"), (family.base, *family.experts), strict=True))


def write(tmp_path, text, folders):
    for name, folder in folders.items():
        text = text.replace(f"${name}", str(folder))
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def steps_of(tmp_path, text, folders):
    return load_steps(write(tmp_path, text, folders))


def test_a_later_document_uses_an_earlier_ones_result(folders, tmp_path):
    config = write(tmp_path, TWO_STEPS, folders)
    done = ronghe("merge", config, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    base, a, b, c = (factory.read_tensors(folders[name]) for name in ("base", "a", "b", "c"))
    for name, merged in factory.read_tensors(tmp_path / "out").items():
        both = (a[name] + 3 * b[name]) / 4
        expected = base[name] + 0.5 * (both - base[name]) + 0.25 * (c[name] - base[name])
        torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "study.yaml"]


def test_documents_may_stand_in_any_order(folders, tmp_path):
    first, second = TWO_STEPS.split("---")
    steps = steps_of(tmp_path, f"{second}---{first}", folders)
    assert [recipe.name for recipe in steps.recipes] == ["both", "study"]
    assert steps.referenced_models == tuple(str(folders[name]) for name in ("a", "b", "c", "base"))


def test_a_sweep_of_the_result_reads_the_step_once(folders, tmp_path):
    config = write(tmp_path, TWO_STEPS + "sweep: {lambda: [0.5, 1.0]}", folders)
    done = ronghe("merge", config, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    made = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert made == ["lambda=0.5", "lambda=1.0"]


def test_the_plan_knows_the_headers_that_the_step_will_have(folders, tmp_path):
    steps = steps_of(tmp_path, TWO_STEPS, folders)
    opened = {
        name: open_checkpoint(name, FolderSource(folders["base"].parent / name), f"digest {name}")
        for name in steps.referenced_models
    }
    first, second = plan_steps(steps, opened).plans
    planned, _ = planned_checkpoint(first)
    assert planned.digest == first.outputs[0].digest
    assert "both" in [each.name for each in second.inputs]
    done = ronghe("plan", write(tmp_path, TWO_STEPS, folders), "--json")
    assert [each["recipe"] for each in json.loads(done.stdout)["earlier_steps"]] == ["both"]
    folder = tmp_path / "alone"
    text = TWO_STEPS.split("---")[0]
    assert ronghe("merge", write(tmp_path, text, folders), folder).returncode == 0
    written = open_checkpoint("both", FolderSource(folder))
    assert written.tensors == planned.tensors
    assert written.config == planned.config
    assert written.files.keys() - planned.files.keys() == {"model.safetensors", "README.md"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("name: both\n", "name: again\n"), "name: again is used by no other document"),
        (("base_model: $base", "base_model: study"), "documents use one another: study → study"),
        (("models:\n  - {model: both,", "name: both\nmodels:\n  - {model: $a,"),
         r"name: both stands in 2 documents; names must differ"),
        (("name: both\n", ""), r"2 of 2 documents have no `name`; only the result may go without"),
        (("{model: both,", "{model: $a,"), r"name: both is used by no other document"),
        (("dtype: float32\n---", "sweep: {normalize: [true, false]}\n---"),
         r"document both: sweep makes several checkpoints"),
        (("weight: 3}", "weigth: 3}"), r"document 1, both: models\[1\].parameters.weigth is no"),
    ],
)  # fmt: skip
def test_files_that_cannot_be(change, expected, folders, tmp_path):
    with pytest.raises(RecipeError, match=expected):
        steps_of(tmp_path, TWO_STEPS.replace(*change), folders)


def test_a_fault_of_a_later_step_stops_everything_before_it_begins(folders, tmp_path):
    other = factory.write_checkpoint(
        tmp_path / "other", factory.base_tensors(factory.LLAMA), factory.LLAMA
    )
    text = TWO_STEPS.replace("$c", str(other))
    steps = steps_of(tmp_path, text, folders)
    opened = {
        name: open_checkpoint(name, FolderSource(tmp_path / name))
        for name in steps.referenced_models
    }
    with pytest.raises(CompatibilityError, match="other"):
        plan_steps(steps, opened)
    config = write(tmp_path, text, folders)
    done = ronghe("merge", config, tmp_path / "out")
    assert done.returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "study.yaml"]


def test_digests_that_come_late_give_the_same_plans(folders, tmp_path):
    steps = steps_of(tmp_path, TWO_STEPS, folders)
    places = {name: FolderSource(folders["base"].parent / name) for name in steps.referenced_models}
    early = {name: open_checkpoint(name, places[name], f"digest {name}") for name in places}
    late = {name: open_checkpoint(name, places[name]) for name in places}
    plans = plan_steps(steps, late)
    assert [plan.outputs[0].digest for plan in plans.plans] == [None, None]
    known = plans.with_digests({place: f"digest {name}" for name, place in places.items()})
    expected = [plan.outputs for plan in plan_steps(steps, early).plans]
    assert [plan.outputs for plan in known.plans] == expected
    assert None not in [output.digest for outputs in expected for output in outputs]
    part = {place: f"digest {name}" for name, place in list(places.items())[1:]}
    assert plans.with_digests(part).result.outputs[0].digest is None

"""Copying from an earlier checkpoint what would come out as it did."""

from dataclasses import replace
from pathlib import Path

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.jobs.assembly import merge
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.reuse import Earlier, reusing, tensor_digests, tensor_keys
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

SHAPE = replace(factory.QWEN2, layers=2)
CHANGED = "model.layers.1.mlp.up_proj.weight"
RECIPE = """
merge_method: {method}
base_model: base
models: [{{model: one}}, {{model: two}}]
parameters: {{weight: 0.5, density: 0.6}}
sweep: {{lambda: [0.5, 1.0]}}
dtype: float32
"""


@pytest.fixture
def folders(tmp_path):
    family = factory.write_family(tmp_path / "family", SHAPE, experts=2)
    return dict(zip(("base", "one", "two"), (family.base, *family.experts), strict=True))


def opened(folders):
    """Named by what they are, with a digest that a change alters, as the store has it."""
    found = {}
    for name, folder in folders.items():
        digest = f"{name} {file_of(folder).stat().st_mtime_ns}"
        found[name] = open_checkpoint(name, FolderSource(folder), digest)
    return found


def file_of(folder):
    return folder / "model.safetensors"


def planned(folders, method="ties", text=RECIPE):
    models = opened(folders)
    plan = plan_merge(parse_recipe(text.format(method=method), "study", "study.yaml"), models)
    keys = tensor_keys(plan, {name: tensor_digests(each) for name, each in models.items()})
    return plan, keys


def carried_out(plan, out):
    sinks = {each.id: FolderSink(out / each.id) for each in plan.coefficients}
    return merge(plan, sinks)


def earlier(plan, keys, out):
    return [
        Earlier(open_checkpoint(each.id, FolderSource(out / each.id)), table)
        for each, table in zip(plan.coefficients, keys, strict=True)
    ]


def change_one_tensor(folder):
    tensors = factory.read_tensors(folder)
    tensors[CHANGED] = tensors[CHANGED] * 1.5
    factory.rewrite_weights(folder, tensors)


def content(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della"])
def test_only_what_changed_is_computed_and_the_result_is_the_same(method, folders, tmp_path):
    first, first_keys = planned(folders, method)
    carried_out(first, tmp_path / "first")
    change_one_tensor(folders["two"])
    plan, keys = planned(folders, method)
    work = reusing(plan, keys, earlier(first, first_keys, tmp_path / "first"))
    done = {step.output.name: step.action for step in work.steps}
    assert [name for name, action in done.items() if action != "reuse"] == [CHANGED]
    carried_out(plan, tmp_path / "whole")
    report = carried_out(work, tmp_path / "reused")
    for point in plan.coefficients:
        assert content(tmp_path / "reused" / point.id) == content(tmp_path / "whole" / point.id)
    assert work.outputs == plan.outputs
    assert report.bytes_read < plan.bytes_read


def test_the_bytes_really_come_from_the_earlier_checkpoint(folders, tmp_path):
    first, keys = planned(folders)
    carried_out(first, tmp_path / "first")
    marked = tmp_path / "first" / "lambda=1.0"
    tensors = factory.read_tensors(marked)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 0 + 7
    factory.rewrite_weights(marked, tensors)
    work = reusing(first, keys, earlier(first, keys, tmp_path / "first"))
    carried_out(work, tmp_path / "again")
    norms = {
        point: factory.read_tensors(tmp_path / "again" / point)["model.norm.weight"]
        for point in ("lambda=0.5", "lambda=1.0")
    }
    assert (norms["lambda=1.0"] == 7).all()
    assert not (norms["lambda=0.5"] == 7).any()


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        (("weight: 0.5", "weight: 0.4"), False),
        (("density: 0.6", "density: 0.5"), False),
        (("dtype: float32", "dtype: bfloat16"), False),
        (("{{model: one}}, {{model: two}}", "{{model: two}}, {{model: one}}"), False),
        (("dtype: float32", "dtype: float32\nsuite: other"), True),
        (("dtype: float32", "dtype: float32\nseed: 3"), True),  # ties draws nothing
    ],
)
def test_what_decides_a_tensor_decides_its_key(change, reused, folders):
    _, keys = planned(folders)
    _, other = planned(folders, text=RECIPE.replace(*change))
    assert (keys == other) is reused
    assert len(keys[0]) == len(SHAPE.tensor_shapes())


def test_the_seed_decides_where_something_is_drawn(folders):
    _, keys = planned(folders, "dare_ties")
    _, other = planned(folders, "dare_ties", RECIPE + "seed: 3\n")
    assert not set(keys[0].values()) & set(other[0].values())


def test_what_is_measured_over_the_model_is_never_copied(folders):
    _, keys = planned(folders, text=RECIPE.replace("density: 0.6", "density: 0.6, trim: global"))
    assert keys == ({}, {})


def test_without_an_earlier_checkpoint_of_every_coefficient_all_is_computed(folders, tmp_path):
    plan, keys = planned(folders)
    carried_out(plan, tmp_path / "first")
    one, _ = earlier(plan, keys, tmp_path / "first")
    assert reusing(plan, keys, [one, None]).steps == plan.steps

"""The library's face: two folders merged in four lines, without torch or Dagster."""

import subprocess
import sys
from dataclasses import replace

import pytest

import merge_ops
from merge_ops import OutputError, load_recipe, merge, open_checkpoint, plan_merge
from tests.merges.merging import ROOT, ronghe
from tests.models import checkpoint_factory as factory

SHAPE = replace(factory.QWEN2, layers=2)
RECIPE = """
merge_method: ties
base_model: base
models: [{model: e1}, {model: e2}]
parameters: {weight: 0.5, density: 0.4}
dtype: bfloat16
"""
WITHOUT = "import sys; sys.modules |= {name: None for name in ('torch', 'dagster', 'pydantic')}\n"
EXAMPLE = """
import doctest, merge_ops
assert not doctest.testmod(merge_ops, raise_on_error=True).failed
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a recipe and three models, as the example of the docstring has it."""
    family = factory.write_family(tmp_path, SHAPE, experts=2)
    for name, path in zip(("base", "e1", "e2"), (family.base, *family.experts), strict=True):
        if path.name != name:
            path.rename(tmp_path / name)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def python(code, folder):
    """Runs a program in a process of its own."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_example_of_the_docstring_merges_without_torch_or_dagster(folder):
    done = python(WITHOUT + EXAMPLE, folder)
    assert done.returncode == 0, done.stderr
    assert ronghe("merge", "recipe.yaml", "same", folder=folder).returncode == 0
    one, other = ((folder / out / "model.safetensors").read_bytes() for out in ("merged", "same"))
    assert one == other


def test_importing_the_library_imports_nothing_heavy(folder):
    heavy = "{'torch', 'numpy', 'dagster', 'pydantic', 'yaml', 'merge_ops.errors'}"
    done = python(f"import sys, merge_ops; print({heavy} & sys.modules.keys())", folder)
    assert done.stdout.strip() == "set()", done.stderr


def test_every_public_name_is_there():
    for name in merge_ops.__all__:
        assert getattr(merge_ops, name).__doc__
    assert set(merge_ops.__all__) <= set(dir(merge_ops))
    with pytest.raises(AttributeError, match="no attribute 'merge_all'"):
        _ = merge_ops.merge_all


def test_a_folder_that_holds_something_is_not_written_into(folder, monkeypatch):
    monkeypatch.chdir(folder)
    recipe = load_recipe("recipe.yaml").result
    plan = plan_merge(recipe, {name: open_checkpoint(name) for name in recipe.referenced_models})
    with pytest.raises(OutputError, match="e1 exists and is not empty"):
        merge(plan, "e1")


def test_a_sweep_makes_a_folder_for_each_coefficient(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "recipe.yaml").write_text(RECIPE + "sweep: {lambda: [0.5, 1.0]}\n")
    recipe = load_recipe("recipe.yaml").result
    plan = plan_merge(recipe, {name: open_checkpoint(name) for name in recipe.referenced_models})
    merge(plan, "merged")
    assert sorted(each.name for each in (folder / "merged").iterdir()) == [
        "lambda=0.5",
        "lambda=1.0",
    ]

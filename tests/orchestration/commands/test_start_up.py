"""What `ronghe plan` and `ronghe merge` load before they begin: start-up is part of every merge."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.child_forks import forking_environment
from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory

RECIPE = """
merge_method: ties
base_model: {0}
models: [{{model: {1}}}, {{model: {2}}}]
parameters: {{weight: 0.5, density: 0.4}}
dtype: bfloat16
"""
HEAVY = ["torch", "dagster", "transformers", "pyarrow", "botocore", "scipy", "pandas", "lm_eval"]
PROGRAM = """
import json, sys
sys.argv = ["ronghe", *sys.argv[1:]]
from orchestration.commands.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def recipe(tmp_path):
    family = factory.write_family(tmp_path / "models", replace(factory.QWEN2, layers=1), experts=2)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(family.base, *family.experts))
    return path


def modules_of(*arguments, status=0, **variables):
    """Names of all modules that a command has loaded when it is done."""
    program = PROGRAM.replace("not end.code", f"(end.code or 0) == {status}")
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_plan_loads_nothing_that_it_does_not_need(recipe):
    loaded = modules_of("plan", recipe)
    unwanted = {*HEAVY, "resources", "eval_ops", "assets", "rich.progress", "merge_ops.jobs"}
    assert loaded & {*unwanted, "merge_ops.stream"} == set()
    assert "merge_ops.plans.plan" in loaded


def test_merge_without_torch_loads_nothing_that_it_does_not_need(recipe, tmp_path):
    where = tmp_path / "out"
    loaded = modules_of("merge", recipe, where, "--device", "cpu", **forking_environment())
    assert loaded & {*HEAVY, "eval_ops"} == set()
    assert "merge_ops.stream.stream" in loaded


@pytest.mark.parametrize(
    ("command", "status"),
    [(["refs", "model"], 2), (["gc"], 0), (["verify"], 2), (["leaderboard"], 1)],
)
def test_what_looks_at_the_store_loads_no_dagster(command, status, tmp_path):
    store = (tmp_path / "store").as_uri()
    loaded = modules_of(*command, status=status, RONGHE_STORE=store)
    assert loaded & {*HEAVY} == set()
    assert "orchestration.catalogs.catalog_name" in loaded
    assert len(loaded) < 800  # 590 today, and 1,200 with Dagster


def test_the_look_at_the_output_loads_no_planner():
    code = "import sys, merge_ops.children.loading_child as m; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = {*done.stdout.decode().split()}
    assert loaded & {"numpy", "torch", "merge_ops.plans", "merge_ops.checkpoints"} == set()

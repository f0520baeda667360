"""Merges by the loops in C give the files that torch gives, and need no torch of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.kernels import compile as compile_kernels
from merge_ops.methods import METHODS
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.device import may_be_cuda
from tests.child_forks import forking_environment, run_script, template_of_children
from tests.merges.arithmetics import LOOPS, TORCH, same_bits, streamed
from tests.merges.merging import PROGRAM
from tests.merges.method_settings import apply, inputs, other_value, usual_parameters
from tests.models import checkpoint_factory as factory
from tests.servers.waiting import HANG_SECONDS

ON_ARRAYS = sorted(name for name, method in METHODS.items() if method.works_on_arrays("element"))
NEEDS_TORCH = "tsvm"
SETTINGS = [
    (name, parameter)
    for name in sorted(METHODS)
    for parameter in (None, *METHODS[name].parameter_specs)
]


@pytest.mark.parametrize(("name", "parameter"), SETTINGS)
def test_every_setting_has_the_same_bits(name: str, parameter: str | None):
    method = METHODS[name]
    tensors = [each.bfloat16().float() for each in inputs(method)]
    changes = {} if parameter is None else {parameter: other_value(method, parameter)}
    parameters = usual_parameters(method, len(tensors), **changes)
    by_loops, by_torch = (apply(name, tensors, parameters, arithmetic=a) for a in (LOOPS, TORCH))
    assert same_bits(by_loops + 0.0, by_torch + 0.0)  # of either sign where they are zero


def recipe(name: str, family: factory.Family) -> str:
    experts = family.experts[: METHODS[name].exactly or 3]
    base = name not in ("nuslerp", "multislerp", "karcher", "passthrough")
    listed = [*([family.base] if name in ("slerp", "blockmerge") else []), *experts][: len(experts)]
    lines = [f"merge_method: {name}", "models:", *(f"  - model: {each}" for each in listed)]
    lines += [f"base_model: {family.base}"] if base else []
    usual = {
        "weight": 0.6,
        "density": 0.4,
        "t": 0.3,
        "epsilon": 0.2,
        "select_topk": 0.4,
        "scale": 0.7,
        "gradient_values": [0.2, 0.7],
    }
    wanted = {key: usual[key] for key in usual if key in METHODS[name].parameter_specs}
    return "\n".join([*lines, "parameters:", *(f"  {key}: {wanted[key]}" for key in wanted), ""])


@pytest.fixture(scope="module", params=["float32", "bfloat16", "float16", "float64"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A tensor of more than two blocks of 65,536 elements among them."""
    dtype = getattr(torch, request.param)
    shape = factory.Shape("llama", layers=1, hidden=128, vocabulary=1100, tied=True, dtype=dtype)
    return factory.write_family(tmp_path_factory.mktemp("arrays"), shape, experts=3)


@pytest.mark.parametrize("name", ON_ARRAYS)
def test_whole_merges_are_the_same_files(name: str, family: factory.Family):
    parsed = parse_recipe(recipe(name, family), name, name)
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in parsed.referenced_models}
    plan = plan_merge(parsed, opened)
    by_loops, by_torch = (streamed(plan, a, threads=2, block=1 << 16) for a in (LOOPS, TORCH))
    assert by_loops == by_torch


def imported_modules(config: Path, out: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], "merge", str(config), str(out)],
        env={**os.environ, **forking_environment()}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


@pytest.mark.skipif(may_be_cuda("auto"), reason="a GPU is here, and only torch can tell which")
@pytest.mark.parametrize("name", ["ties", NEEDS_TORCH])
def test_only_methods_that_need_torch_import_it(name: str, tmp_path: Path):
    shape = factory.Shape("llama", layers=1, dtype=torch.bfloat16)
    config = tmp_path / "recipe.yaml"
    config.write_text(recipe(name, factory.write_family(tmp_path / "family", shape, experts=3)))
    told = imported_modules(config, tmp_path / "out").splitlines()
    imported = [line.split("|")[-1].strip() for line in told]
    assert ("torch" in imported) == (name == NEEDS_TORCH)
    assert "numpy" in imported


@pytest.mark.parametrize("asked", [None, "default", "avx2"])
def test_the_processor_is_the_one_torch_sees(
    asked: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A process that has computed nothing with torch tells what it sees: then torch looks."""
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if asked:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", asked)
    script = tmp_path / "tell.py"
    script.write_text("import torch\nprint(torch.backends.cpu.get_cpu_capability())\n")
    told = run_script(template_of_children(), [script], os.environ, HANG_SECONDS)
    assert compile_kernels.processor() == told.stderr.strip()

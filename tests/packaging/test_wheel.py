"""The wheel, as somebody gets it who has neither a compiler nor torch, and as one who has all.

One file, so that one worker builds the wheel once.
"""

import ast
import importlib.metadata
import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from tests.merges.merging import ROOT
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, make_project
from tests.packaging.conftest import PACKAGES, Environment

MACHINE = platform.machine()
LOCATION = "ronghe.orchestration.definitions"
SHAPES = {"model.layers.0.mlp.up_proj.weight": (16, 8), "model.norm.weight": (8,)}
WEIGHTS = (1.0, 0.5)
TIES = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [
        {"model": name, "parameters": {"density": 0.5, "weight": weight}}
        for name, weight in zip(("one", "two"), WEIGHTS, strict=True)
    ],
    "dtype": "float32",
}
TSVM = {
    "merge_method": "tsvm",
    "base_model": "base",
    "models": [{"model": "one"}],
    "dtype": "float32",
}


def write_models(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Write a base model and two experts, of float32 numbers that are all different."""
    random = np.random.default_rng(7)
    models = {}
    for name in ("base", "one", "two"):
        tensors = {k: random.normal(size=shape).astype(np.float32) for k, shape in SHAPES.items()}
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"model_type": "llama"}))
        models[name] = tensors
    return models


def write_recipe(folder: Path, recipe: dict[str, object]) -> str:
    name = f"{recipe['merge_method']}.yaml"
    (folder / name).write_text(yaml.safe_dump(recipe))
    return name


@pytest.fixture(scope="module")
def models(installed: Environment) -> dict[str, dict[str, np.ndarray]]:
    return write_models(installed.home)


def ties(base: np.ndarray, experts: list[np.ndarray]) -> np.ndarray:
    """TIES by sorting: trim each task vector to half, elect signs, average what agrees."""
    shares = np.array(WEIGHTS, dtype=np.float64).reshape(-1, *[1] * base.ndim)
    vectors = np.stack([each.astype(np.float64) - base for each in experts])
    for vector in vectors:
        kept = np.sort(np.abs(vector).ravel())[vector.size // 2 :]
        vector[np.abs(vector) < kept[0]] = 0
    weighted = vectors * shares
    agreeing = weighted * np.sign(weighted.sum(axis=0)) > 0
    total = np.where(agreeing, weighted, 0).sum(axis=0)
    divisor = np.where(agreeing, shares, 0).sum(axis=0)
    return base + total / np.where(divisor == 0, 1, divisor)


def test_a_merge_by_ties(installed: Environment, models: dict[str, dict[str, np.ndarray]]):
    done = installed.run("ronghe", "merge", write_recipe(installed.home, TIES), "merged")
    assert done.returncode == 0, done.stderr
    merged = load_file(installed.home / "merged" / "model.safetensors")
    for name, base in models["base"].items():
        expected = ties(base, [models["one"][name], models["two"][name]])
        np.testing.assert_allclose(merged[name], expected, atol=1e-6, err_msg=name)


def test_a_plan(installed: Environment, models: object):
    done = installed.run("ronghe", "plan", write_recipe(installed.home, TIES))
    assert done.returncode == 0, done.stderr
    assert "ties" in done.stdout


def test_its_version(installed: Environment):
    done = installed.run("ronghe", "--version")
    assert done.stdout == f"ronghe {importlib.metadata.version('ronghe')}\n"


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (("refresh",), "dagster", "platform"),
        (("merge", "tsvm.yaml", "out"), "torch", "torch"),
        (("extract-lora", "one", "base", "out"), "torch", "torch"),
        (("verify",), "botocore", "platform"),
        (("leaderboard",), "botocore", "platform"),
        (("gc",), "botocore", "platform"),
    ],
    ids=lambda each: "_".join(each) if isinstance(each, tuple) else each,
)
def test_what_needs_an_extra_says_which(
    installed: Environment,
    models: object,
    command: tuple[str, ...],
    package: str,
    extra: str,
):
    write_recipe(installed.home, TSVM)
    done = installed.run("ronghe", *command, RONGHE_STORE="s3://bucket/prefix")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr == (
        f"ronghe {command[0]} needs the package {package} here, which is not installed; "
        f"run: pip install 'ronghe[{extra}]'\n"
    )
    assert not (installed.home / "out").exists()


def test_the_library_needs_neither_torch_nor_dagster(installed: Environment):
    """Neither where they are missing, nor where they are there."""
    code = "import sys, merge_ops; print(sorted({'torch', 'dagster'} & set(sys.modules)))"
    assert installed.run("python", "-c", code).stdout == "[]\n"
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert here.stdout == "[]\n", here.stderr


def test_the_top_of_site_packages(installed: Environment):
    """Nothing lies there under a name that other people use, and nothing was left out."""
    distribution = next(
        importlib.metadata.distributions(name="ronghe", path=[str(installed.packages)])
    )
    files = [file.as_posix() for file in distribution.files or () if ".." not in file.parts]
    tops = {file.split("/")[0] for file in files}
    assert tops == {"merge_ops", "eval_ops", "ronghe", f"ronghe-{distribution.version}.dist-info"}
    names = {each.name for each in installed.packages.iterdir()}
    assert not names & {"assets", "resources", "orchestration", "tests", "torch", "dagster"}
    assert {file for file in files if file.endswith((".py", ".c", ".h"))} == {
        "ronghe/__init__.py",
        *(
            f"{'' if name.endswith('_ops') else 'ronghe/'}{path.relative_to(ROOT).as_posix()}"
            for name in PACKAGES
            for path in (ROOT / name).rglob("*")
            if path.suffix in (".py", ".c", ".h")
        ),
    }


def test_no_import_of_a_name_that_moved(installed: Environment):
    moved = {"orchestration", "assets", "resources"}
    for file in (installed.packages / "ronghe").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & moved, f"{file}:{node.lineno}"


def test_the_compiled_loops_are_used(installed: Environment, models: object):
    """Without torch nothing but the loops can merge, and it says so where they are gone."""
    loops = sorted((installed.packages / "merge_ops" / "kernels").glob("kernels-*.so"))
    assert len(loops) == (3 if MACHINE == "x86_64" else 1)
    for file in loops:
        file.rename(file.with_suffix(".gone"))
    try:
        recipe = write_recipe(installed.home, TIES)
        done = installed.run("ronghe", "merge", recipe, "without_loops")
    finally:
        for file in loops:
            file.with_suffix(".gone").rename(file)
    assert done.returncode == 2
    assert "pip install 'ronghe[torch]'" in done.stderr


@pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="no manylinux wheel is built here")
def test_the_tag_is_true(wheel: Path):
    """Auditwheel reads from the libraries which systems they run on."""
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}.whl")
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    told = " ".join(shown.stdout.split())
    assert f'consistent with the following platform tag: "manylinux_2_17_{MACHINE}"' in told
    with zipfile.ZipFile(wheel) as content:
        names = [each for each in content.namelist() if each.endswith(".so")]
        magic = {content.read(each)[:4] for each in names}
    assert magic == {b"\x7fELF"}


def test_refresh_and_a_step_of_its_own(complete: Environment, tmp_path: Path):
    """Refresh runs in one process; Dagster's executor starts each step in one of its own."""
    project = make_project(tmp_path, {"sums": TASK_ARITHMETIC}, experts=2)
    variables = {**project.environment, "HF_HUB_OFFLINE": "1"}
    done = complete.run("ronghe", "refresh", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    done = complete.run("ronghe", "leaderboard", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sums" in done.stdout

    options = ("-m", LOCATION, "--select", "model", "--partition", "base")
    done = complete.run("python", "-m", "dagster", "asset", "materialize", *options, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Launching subprocess for" in done.stdout + done.stderr
    assert "RUN_SUCCESS" in done.stdout + done.stderr


def test_the_modules_lie_in_the_wheel(complete: Environment):
    code = f"import {LOCATION.split('.')[0]}, merge_ops; print(ronghe.__file__, merge_ops.__file__)"
    files = complete.run("python", "-c", code).stdout.split()
    assert all(Path(file).is_relative_to(complete.packages) for file in files)
    assert complete.run("python", "-c", "import orchestration").returncode == 1

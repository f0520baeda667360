"""One plan's digest stands for one file, whatever the processor can do: every method, both dtypes.

Processes find other processors by what they are told: torch and the loops in C by
ATEN_CPU_CAPABILITY, numpy, glibc and OpenBLAS by variables of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from merge_ops.methods import METHODS
from tests.merges.merging import ROOT
from tests.models.checkpoint_factory import Shape, write_family

PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-AVX512F",
    "OPENBLAS_CORETYPE": "Nehalem",
}
MIDDLE = {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell"}
# One process each: its environment, its hash seed, and what it merges with, one after the other:
# (arithmetic, threads, elements of a block).
PROCESSES = {
    "native": ({}, 0, [("loops", 2, 1 << 16), ("torch", 4, 1 << 16)]),
    "plain": (PLAIN, 1, [("loops", 1, 1 << 17), ("torch", 2, 1 << 24)]),
    "middle": (MIDDLE, 2, [("loops", 4, 1 << 24), ("torch", 1, 1 << 17)]),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 136 elements, tensors of up to three of the smallest blocks."""
    work = tmp_path_factory.mktemp("models")
    shape = Shape("llama", 1, hidden=136, vocabulary=980, tied=True, dtype=torch.bfloat16)
    write_family(work, shape, experts=2, spread=0.01)
    return work


def known_here(environment: dict[str, str]) -> dict[str, str]:
    """What this machine's numpy does not know it cannot be told to leave out."""
    umath = np_features()
    wanted = environment.get("NPY_DISABLE_CPU_FEATURES", "").split()
    kept = {key: value for key, value in environment.items() if not key.startswith("NPY")}
    disabled = [name for name in wanted if name in umath]
    return {**kept, **({"NPY_DISABLE_CPU_FEATURES": " ".join(disabled)} if disabled else {})}


def np_features() -> set[str]:
    """The features that numpy chooses by at run time, and this processor has."""
    from numpy._core import _multiarray_umath as umath

    return {name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)}


@pytest.fixture(scope="module")
def made(models: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """What every run made, by case."""
    results: dict[str, dict[str, tuple[str, str]]] = {}
    for name, (environment, seed, merges) in PROCESSES.items():
        command = [sys.executable, "-m", "tests.merges.digest_merges", str(models)]
        done = subprocess.run(
            [*command, json.dumps(merges)],
            env={
                **os.environ, **known_here(environment), "PYTHONHASHSEED": str(seed),
                "PYTHONPATH": str(ROOT),
            },
            cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(done.stdout.splitlines()[-1])
        for (arithmetic, *_), cases in zip(merges, told, strict=True):
            results[f"{name} {arithmetic}"] = {case: tuple(each) for case, each in cases.items()}
    return results


def test_one_digest_stands_for_one_file(made):
    files: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run, cases in made.items():
        for case, (digest, file) in cases.items():
            files.setdefault((case, digest), {}).setdefault(file, []).append(run)
    several = {case: runs for (case, _), runs in files.items() if len(runs) > 1}
    assert not several


def test_only_linear_algebra_makes_a_digest_the_machine_s_own(made):
    by_machine = {
        case
        for case in made["native loops"]
        if len({cases[case][0] for cases in made.values()}) > 1
    }
    assert {case.split(",")[0] for case in by_machine} == {
        name for name, method in METHODS.items() if method.by_lapack
    }

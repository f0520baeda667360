"""The rooms of eval_ops: cheap to enter, small in what they offer, and one door to lm-eval."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eval_ops

ROOMS = ("running", "running.mixtures", "suites", "scores", "search", "plots")
HEAVY = (
    "torch", "transformers", "datasets", "lm_eval", "pyarrow", "matplotlib", "safetensors",
    "optuna", "cma", "scipy",
)  # fmt: skip
SOURCES = Path(eval_ops.__file__).parent


def loaded_after(*modules: str) -> list[str]:
    """The heavy packages in a fresh interpreter that has imported these modules."""
    code = (
        f"import json, sys; import {', '.join(modules)}\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_nothing_heavy_is_imported_at_module_level() -> None:
    names = [
        ".".join(path.relative_to(SOURCES.parent).with_suffix("").parts)
        for path in sorted(SOURCES.rglob("*.py"))
    ]
    assert "eval_ops.suites.harness" in names
    assert loaded_after(*names) == []


def test_what_is_asked_for_is_seen() -> None:
    assert loaded_after("safetensors") == ["safetensors"]


MODULES = ("gates", "moe_saliency")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_names_at_most_ten_things_and_has_them(room: str) -> None:
    module = importlib.import_module(f"eval_ops.{room}")
    assert 1 <= len(module.__all__) <= 10
    assert list(module.__all__) == sorted(module.__all__)
    for name in module.__all__:
        if name in MODULES:  # `from eval_ops.running.mixtures import gates` imports it
            importlib.import_module(f"eval_ops.{room}.{name}")
        assert getattr(module, name).__doc__ or name == "Progress"


def test_the_rooms_are_those_of_the_tree() -> None:
    outer = {room.split(".")[0] for room in ROOMS}
    assert {path.parent.name for path in SOURCES.glob("*/__init__.py")} == outer


def test_only_the_harness_knows_lm_eval() -> None:
    knowing = [
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(r"^\s*(import|from) lm_eval\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert knowing == ["suites/harness.py"]

"""What the rooms of resources show to others, and what importing them costs."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("store", "reading", "places", "upstream")
HEAVY = ("botocore", "urllib3", "huggingface_hub", "s3fs", "torch", "dagster", "numpy")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_shows_at_most_ten_things(room: str) -> None:
    face = importlib.import_module(f"resources.{room}")
    assert 0 < len(face.__all__) <= 10
    assert all(hasattr(face, name) for name in face.__all__)


def test_importing_them_brings_no_client() -> None:
    rooms = ", ".join(f"resources.{room}" for room in ROOMS)
    program = f"import sys, {rooms}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"

"""`ronghe merge` is stopped in the middle: nothing half, nothing left, and the next is right."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from merge_ops.working_folders import HIDDEN
from tests.merges.merging import ROOT, ronghe
from tests.models import checkpoint_factory as factory
from tests.servers.waiting import HANG_SECONDS

RECIPE = """
merge_method: linear
models: [{{model: {0}}}, {{model: {1}}}]
parameters: {{weight: 1}}
"""
STOPPED = """
import os, sys, time
from merge_ops.stream import stream
plain = stream.BlockStream._merge_block
def slow(self, *arguments):
    os.write(1, b"merging\\n")  # at once: two threads come here
    time.sleep(float(os.environ["PAUSE"]))
    return plain(self, *arguments)
stream.BlockStream._merge_block = slow
from orchestration.commands.start import main
main()
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    family = factory.write_family(folder / "models", factory.LLAMA, experts=1)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(family.base, family.experts[0]))
    return path


def merge(recipe: Path, out: Path, temporary: Path, pause: float = 2) -> "subprocess.Popen[str]":
    """A merge that has begun to merge blocks."""
    command = [sys.executable, "-c", STOPPED, "merge", "--no-verify", str(recipe), str(out)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "PAUSE": str(pause)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    if told != "merging\n":
        process.kill()
        raise AssertionError((told, *process.communicate()))
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number, recipe, tmp_path):
    place, temporary = tmp_path / "place", tmp_path / "tmp"
    temporary.mkdir()
    process = merge(recipe, place / "out", temporary)
    process.send_signal(number)
    _, told = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 128 + number, told
    assert told.count("ronghe: stopped") == 1
    assert "Traceback" not in told
    assert not place.exists()
    assert list(temporary.iterdir()) == []


def test_what_a_kill_leaves_goes_with_the_next_merge(recipe, tmp_path):
    place, temporary = tmp_path / "place", tmp_path / "tmp"
    temporary.mkdir()
    process = merge(recipe, place / "out", temporary, pause=3600)  # it is killed in its first block
    living = merge(recipe, place / "other", temporary, pause=3600)
    process.kill()
    process.communicate()
    try:
        assert len(list(place.glob(f"{HIDDEN}*"))) == 2
        assert ronghe("merge", recipe, place / "out").returncode == 0
        assert len(list(place.glob(f"{HIDDEN}*"))) == 1  # of the one that is alive
        assert (place / "out" / "config.json").exists()
    finally:
        living.kill()
        living.communicate()

"""A few attacks on the commands, each in a process of its own: `benchmarks/hostile` in small."""

import subprocess
import sys

from tests.merges.merging import ROOT


def test_no_attack_gets_through() -> None:
    """The limits only look for hangs: a machine may be slow."""
    command = ["-m", "benchmarks.hostile", "--cases", "60", "--workers", "1", "--seed", "3"]
    limits = ["--limit", "600", "--stop", "300"]
    done = subprocess.run(
        [sys.executable, *command, *limits], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "60 cases, 0 finds" in done.stdout

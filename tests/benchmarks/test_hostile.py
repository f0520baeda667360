"""A few attacks on the commands, each in a process of its own: `benchmarks/hostile` in small."""

import pytest

from benchmarks import hostile
from tests.forks import FORKS


def test_no_attack_gets_through(capfd: pytest.CaptureFixture[str]) -> None:
    """The limits only look for hangs: a machine may be slow.

    The processes that attack are forks of one that has imported what takes seconds.
    """
    asked = ["--cases", "60", "--workers", "1", "--seed", "3", "--limit", "600", "--stop", "300"]
    with pytest.raises(SystemExit) as ended:
        hostile.main(asked, FORKS)
    told = capfd.readouterr().out
    assert ended.value.code == 0, told[-6000:]
    assert "60 cases, 0 finds" in told

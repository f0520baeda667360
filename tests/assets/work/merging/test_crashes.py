"""Short versions of benchmarks/crash.py and benchmarks/race.py."""

from pathlib import Path

from benchmarks.crash import SHAPE, Crashes
from benchmarks.race import race
from tests.models import checkpoint_factory as factory

KILLS = 4


def test_random_kills(store_root: str, tmp_path: Path) -> None:
    """Nothing broken, nothing lost, and every merge ends as if it never had been killed."""
    family = factory.write_family(tmp_path / "models", SHAPE)
    summary = Crashes(store_root, family, tmp_path, seed=3).run(KILLS, print)
    assert summary.kills == KILLS
    assert sum(summary.phases.values()) == KILLS
    assert summary.visible >= KILLS + 1


def test_eight_processes_merge_the_same_plan_at_once(store_root: str, tmp_path: Path) -> None:
    row = race(store_root, processes=8, rounds=2, work=tmp_path)
    assert row["merges published at once"] + row["merges found there"] == 16
    assert sum(row["quarrels won by"].values()) == 2

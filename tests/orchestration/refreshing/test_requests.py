"""Runs for requested partitions: few, without holes, and one expert set where it matters."""

import dagster as dg

from orchestration.refreshing.requests import key_ranges

SETS = ["a+b", "a+b+c", "a+c", "b+c"]
POINTS = ["t=0.3", "t=0.5", "t=0.7"]
GRID = dg.MultiPartitionsDefinition(
    {
        "experts": dg.StaticPartitionsDefinition(SETS),
        "coefficient": dg.StaticPartitionsDefinition(POINTS),
    }
)
LINE = dg.StaticPartitionsDefinition(["m1", "m2", "m3", "m4"])


def keys(sets: list[str], points: list[str] = POINTS) -> set[str]:
    return {f"{point}|{each}" for each in sets for point in points}


def ranges(asked: set[str], wide: bool) -> list[list[str]]:
    return [list(each) for each in key_ranges(GRID, asked, wide)]


def test_a_grid_takes_one_run_for_each_expert_set() -> None:
    assert [{key.split("|")[1] for key in run} for run in ranges(keys(SETS), False)] == [
        {each} for each in SETS
    ]


def test_a_run_has_no_holes() -> None:
    asked = keys(["a+b"]) - {"t=0.5|a+b"}
    assert ranges(asked, False) == [["t=0.3|a+b"], ["t=0.7|a+b"]]


def test_a_wide_run_takes_neighbouring_sets() -> None:
    runs = ranges(keys(["a+b", "a+b+c", "b+c"]), True)
    assert [set(run) for run in runs] == [keys(["a+b", "a+b+c"]), keys(["b+c"])]


def test_wide_runs_are_rectangles_that_dagster_resolves_to_the_same_keys() -> None:
    asked = keys(SETS) - {"t=0.5|a+b+c", "t=0.3|b+c"}
    covered: list[str] = []
    for run in ranges(asked, True):
        span = dg.PartitionKeyRange(run[0], run[-1])
        resolved = [str(key) for key in GRID.get_partition_keys_in_range(span)]
        assert sorted(resolved) == sorted(run)
        covered += run
    assert sorted(covered) == sorted(asked)


def test_one_dimension_gives_single_keys_or_neighbours() -> None:
    asked = {"m1", "m2", "m4"}
    assert list(key_ranges(LINE, asked, False)) == [["m1"], ["m2"], ["m4"]]
    assert list(key_ranges(LINE, asked, True)) == [["m1", "m2"], ["m4"]]

"""Runs for requested partitions: few, of ranges without holes."""

from random import Random

import dagster as dg
import pytest

from assets.frame.batches import between, range_tags
from orchestration.refreshing.requests import Pending
from orchestration.run_plans import MOST_PARTITIONS, MOST_RANGES, RunPlan, key_ranges, plan_runs

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


def ranges(asked: set[str]) -> list[list[str]]:
    return [list(each) for each in key_ranges(GRID, asked)]


def test_a_range_takes_neighbouring_sets_at_the_same_points() -> None:
    found = ranges(keys(["a+b", "a+b+c", "b+c"]))
    assert [set(each) for each in found] == [keys(["a+b", "a+b+c"]), keys(["b+c"])]


def test_a_range_has_no_holes() -> None:
    asked = keys(["a+b"]) - {"t=0.5|a+b"}
    assert ranges(asked) == [["t=0.3|a+b"], ["t=0.7|a+b"]]


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_rectangles_that_dagster_resolves_to_the_same_keys(seed: int) -> None:
    everything = sorted(keys(SETS))
    random = Random(seed)
    asked = set(random.sample(everything, random.randint(1, len(everything))))
    covered: list[str] = []
    for each in ranges(asked):
        resolved = [str(key) for key in between(GRID, each[0], each[-1])]
        assert sorted(resolved) == sorted(each)
        covered += each
    assert sorted(covered) == sorted(asked)


def test_one_dimension_gives_neighbours() -> None:
    assert list(key_ranges(LINE, {"m1", "m2", "m4"})) == [["m1", "m2"], ["m4"]]


def test_one_run_takes_many_ranges_of_one_asset_and_of_others_with_the_same_wishes() -> None:
    many = dg.StaticPartitionsDefinition([f"p{number:04}" for number in range(4 * MOST_RANGES)])

    @dg.asset(partitions_def=many)
    def one() -> None: ...

    @dg.asset(partitions_def=many)
    def two() -> None: ...

    graph = dg.Definitions(assets=[one, two]).resolve_asset_graph()
    asked = set(many.get_partition_keys()[::2])  # no two are neighbours
    plans = list(plan_runs(graph, {one.key: {*asked}, two.key: {*asked}}))
    assert [len(plan.ranges) for plan in plans] == [MOST_RANGES, MOST_RANGES]
    assert {plan.assets for plan in plans} == {(one.key, two.key)}
    assert {key for plan in plans for key in plan.keys or ()} == asked
    assert plans[0].tags == range_tags(plans[0].ranges)


def test_a_run_has_so_many_partitions_at_most_and_whole_sets() -> None:
    line = dg.StaticPartitionsDefinition([f"p{number:04}" for number in range(2 * MOST_PARTITIONS)])
    sets = dg.StaticPartitionsDefinition(
        [f"s{number:03}" for number in range(MOST_PARTITIONS // 3)]
    )
    points = dg.StaticPartitionsDefinition(["c0", "c1", "c2", "c3"])
    grid = dg.MultiPartitionsDefinition({"experts": sets, "coefficient": points})

    @dg.asset(partitions_def=line)
    def one() -> None: ...

    @dg.asset(partitions_def=grid)
    def two() -> None: ...

    graph = dg.Definitions(assets=[one, two]).resolve_asset_graph()
    for asset, definition in ((one, line), (two, grid)):
        keys = [str(key) for key in definition.get_partition_keys()]
        plans = list(plan_runs(graph, {asset.key: set(keys)}))
        assert sorted(key for plan in plans for key in plan.keys or ()) == sorted(keys)
        assert [len(plan.keys or ()) <= MOST_PARTITIONS for plan in plans] == [True, True]
        for plan in plans:
            named = [str(key) for ends in plan.ranges for key in between(definition, *ends)]
            assert sorted(named) == sorted(plan.keys or ()), "what its tags say"
    of_sets = [{key.partition("|")[2] for key in plan.keys or ()} for plan in plans]
    assert not of_sets[0] & of_sets[1], "a set is read once"


def test_a_set_of_more_points_than_a_run_holds_is_cut_between_points() -> None:
    names = [f"c{number:04}" for number in range(MOST_PARTITIONS + 1)]
    grid = dg.MultiPartitionsDefinition(
        {
            "experts": dg.StaticPartitionsDefinition(["a", "b"]),
            "coefficient": dg.StaticPartitionsDefinition(names),
        }
    )

    @dg.asset(partitions_def=grid)
    def one() -> None: ...

    graph = dg.Definitions(assets=[one]).resolve_asset_graph()
    keys = {str(key) for key in grid.get_partition_keys()}
    plans = list(plan_runs(graph, {one.key: {*keys}}))
    assert {key for plan in plans for key in plan.keys or ()} == keys
    for plan in plans:
        assert len(plan.keys or ()) <= MOST_PARTITIONS
        named = [str(key) for ends in plan.ranges for key in between(grid, *ends)]
        assert sorted(named) == sorted(plan.keys or ())


def summaries() -> tuple[dg.Definitions, dict[str, dg.AssetsDefinition]]:
    """Models, merges, a board of both, a page after it, a shelf after that, another board."""

    @dg.asset(partitions_def=LINE)
    def models() -> None: ...

    @dg.asset(partitions_def=GRID, deps=[models])
    def merges() -> None: ...

    @dg.asset(deps=[merges, models])
    def board() -> None: ...

    @dg.asset(deps=[board])
    def page() -> None: ...

    @dg.asset(deps=[merges])
    def other() -> None: ...

    @dg.asset(deps=[page])
    def shelf() -> None: ...

    assets = {
        each.key.to_user_string(): each for each in (models, merges, board, page, shelf, other)
    }
    return dg.Definitions(assets=list(assets.values())), assets


def pending_of(asked: dict[str, set[str | None]]) -> Pending:
    definitions, assets = summaries()
    pending = Pending(definitions.resolve_asset_graph())
    pending.add({assets[name].key: parts for name, parts in asked.items()})
    return pending


def told(plans: list[RunPlan]) -> list[tuple[list[str], list[str]]]:
    """Names of each plan's assets and of its riders."""
    return [
        ([each.to_user_string() for each in plan.assets],
         [each.to_user_string() for each in plan.riders])
        for plan in plans
    ]  # fmt: skip


def test_summaries_ride_with_those_that_they_come_after() -> None:
    asked = {"merges": keys(SETS), "board": {None}, "page": {None}, "other": {None}}
    pending = pending_of(asked)
    (first,) = pending.ready()
    assert told([first]) == [(["merges"], [])], "partitions take no summary along"
    pending.settle(first, {key: set() for key in first.everything})
    (second,) = pending.ready()
    assert told([second]) == [(["board", "other"], ["page"])]
    pending.settle(second, {key: set() for key in second.everything})
    assert pending.wanted == {}


def test_a_summary_rides_only_with_its_own_parents() -> None:
    """Steps of a run are in the order of their own inputs, and in no other."""
    pending = pending_of({"board": {None}, "shelf": {None}})
    (plan,) = pending.ready()
    assert told([plan]) == [(["board"], [])], "the page between them is not in the run"
    pending = pending_of({"board": {None}, "merges": keys(["a+b"]), "page": {None}})
    (plan,) = pending.ready()
    assert told([plan]) == [(["merges"], [])]


def test_riders_that_a_failure_kept_from_their_turn_run_without_it() -> None:
    pending = pending_of({"board": {None}, "page": {None}, "shelf": {None}})
    (plan,) = pending.ready()
    assert told([plan]) == [(["board"], ["page", "shelf"])]
    board = plan.assets[0]
    pending.settle(plan, {board: {None}})
    assert pending.failed[board] == {None}
    (again,) = pending.ready()
    assert told([again]) == [(["page"], ["shelf"])]
    pending.settle(again, {key: set() for key in again.everything})
    assert pending.wanted == {}
    assert pending.waiting[board] == {None}

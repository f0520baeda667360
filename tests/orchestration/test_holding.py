"""What comes after wishes and unfinished runs waits; nothing waits for strangers, or for ever."""

from random import Random

import dagster as dg
import pytest

from assets.frame.dagster_internals import AssetGraph
from orchestration.holding import Parts, what_may_run

PARTS = ("p1", "p2", "p3")
LINE = dg.StaticPartitionsDefinition(PARTS)
OTHER = dg.StaticPartitionsDefinition([*PARTS, "p4"])
SAME = dg.StaticPartitionMapping({part: part for part in PARTS})


def graph_of(**assets: tuple[dg.PartitionsDefinition | None, list[str]]) -> AssetGraph:
    """Assets by name, each with its partitions and its parents."""
    made: list[dg.AssetsDefinition] = []
    for name, (definition, parents) in assets.items():
        mapped = {
            parent: SAME if definition is not None and assets[parent][0] != definition else None
            for parent in parents
        }
        deps = [dg.AssetDep(parent, partition_mapping=mapped[parent]) for parent in parents]

        @dg.asset(name=name, partitions_def=definition, deps=deps)
        def one() -> None: ...

        made.append(one)
    return dg.Definitions(assets=made).resolve_asset_graph()


def parts(**wanted: str | None) -> Parts:
    """Partitions by asset: "p1 p2", or None for an asset without partitions."""
    return {
        dg.AssetKey(name): {None} if which is None else set(which.split())
        for name, which in wanted.items()
    }


CHAIN = graph_of(
    plan=(LINE, []),
    merged=(OTHER, ["plan"]),
    scores=(OTHER, ["merged"]),
    board=(None, ["scores"]),
    best=(None, ["board"]),
)


def test_what_a_run_has_made_already_waits_until_the_run_is_over() -> None:
    busy = parts(plan="p1 p2")
    assert what_may_run(CHAIN, parts(merged="p1", scores="p1"), busy) == {}
    assert what_may_run(CHAIN, parts(merged="p1 p2"), {}) == parts(merged="p1 p2")


def test_no_partition_waits_for_a_run_of_others() -> None:
    assert what_may_run(CHAIN, parts(merged="p1 p3"), parts(plan="p1")) == parts(merged="p3")


def test_a_wish_waits_for_those_far_above_it() -> None:
    assert what_may_run(CHAIN, parts(plan="p1", scores="p1 p2"), {}) == parts(
        plan="p1", scores="p2"
    )


def test_what_is_in_a_run_is_not_asked_for_again() -> None:
    assert what_may_run(CHAIN, parts(scores="p1 p2"), parts(scores="p1")) == parts(scores="p2")


def test_a_run_of_what_the_catalog_no_longer_has_keeps_nothing() -> None:
    assert what_may_run(CHAIN, parts(merged="p1"), parts(plan="gone")) == parts(merged="p1")


def test_equal_partitions_of_an_asset_and_of_what_comes_after_it_share_a_run() -> None:
    both = parts(merged="p1 p2", scores="p1 p2")
    assert what_may_run(CHAIN, both, {}) == both
    apart = what_may_run(CHAIN, parts(merged="p1 p2", scores="p1 p2 p3"), {})
    assert apart == parts(merged="p1 p2", scores="p3"), "else two runs at once, of which one waits"


def test_summaries_wait_for_all_that_they_sum_up_and_share_a_run() -> None:
    both = parts(board=None, best=None)
    assert what_may_run(CHAIN, both, parts(plan="p3")) == {}
    assert what_may_run(CHAIN, both, {}) == both
    assert what_may_run(CHAIN, parts(best=None), parts(board=None)) == {}


def test_recipes_do_not_wait_for_each_other() -> None:
    two = graph_of(
        model=(LINE, []),
        slow=(LINE, ["model"]),
        slow_scores=(LINE, ["slow"]),
        quick=(OTHER, ["model"]),
    )
    busy = parts(slow="p1 p2 p3")
    assert what_may_run(two, parts(slow_scores="p1", quick="p1"), busy) == parts(quick="p1")


@pytest.mark.parametrize("seed", range(30))
def test_something_may_run_as_long_as_nothing_runs_and_nothing_starts_before_its_inputs(
    seed: int,
) -> None:
    random = Random(seed)
    shapes = [LINE, OTHER]
    names = [f"a{number}" for number in range(6)]
    assets: dict[str, tuple[dg.PartitionsDefinition | None, list[str]]] = {}
    for index, name in enumerate(names):
        shape = random.choice(shapes) if index < 4 else None
        assets[name] = (shape, names[max(0, index - 2) : index])
    graph = graph_of(**assets)
    left: Parts = {}
    for name, (definition, _) in assets.items():
        some: set[str | None] = {None}
        if definition is not None:
            some = {*random.sample(PARTS, random.randint(0, len(PARTS)))}
        if some and random.random() < 0.8:
            left[dg.AssetKey(name)] = some
    while left:
        free = what_may_run(graph, left, {})
        assert free
        for key, found in free.items():
            assert found <= left[key]
            for parent in graph.get_ancestor_asset_keys(key) - {key}:
                common = found & left.get(parent, set())
                shares = graph.get(parent).partitions_def == graph.get(key).partitions_def
                assert not common or (shares and free[parent] == found)
        left = {key: rest for key in left if (rest := left[key] - free.get(key, set()))}

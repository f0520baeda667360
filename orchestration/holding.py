"""What the daemon has to hold: wishes below other wishes, or below runs that are not over.

A run reports its partitions one by one. What comes after them would be asked for one by one too,
and be many runs instead of one. So a partition waits until no partition that it comes from is asked
for or in a run, be it that the run has made that one already.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.refreshing.standing import parts_below

if TYPE_CHECKING:
    from assets.dagster_internals import AssetGraph

Parts = dict[dg.AssetKey, set[str | None]]


def what_may_run(
    graph: "AssetGraph",
    wanted: Mapping[dg.AssetKey, set[str | None]],
    busy: Mapping[dg.AssetKey, set[str | None]],
) -> Parts:
    """Return the part of `wanted` that waits for nothing; `busy` are partitions of unfinished runs.

    Partitions wait for their own inputs alone, so no stranger's long run keeps them. An asset waits
    for no wish that shares its run: equal partitions of an asset before it.
    """
    late: Parts = {}
    free: Parts = {}
    for key in graph.toposorted_asset_keys:
        asked, at_work = wanted.get(key, set()), busy.get(key, set())
        above = _below(graph, key, late)
        late[key] = asked | at_work | above
        if not asked:
            continue
        alone = asked - at_work - above
        beside = [each for each in _same_shape(graph, key) if free.get(each)]
        others = {each: late[each] - free.get(each, set()) for each in beside}
        together = asked - at_work - _below(graph, key, {**late, **others})
        shared = all(free[each] == together for each in beside)
        if found := together if shared else alone:
            free[key] = found
    return free


def _same_shape(graph: "AssetGraph", key: dg.AssetKey) -> Iterable[dg.AssetKey]:
    """The parents that an asset can share a run with."""
    definition = graph.get(key).partitions_def
    parents = graph.get(key).parent_keys
    return [each for each in parents if graph.get(each).partitions_def == definition]


def _below(graph: "AssetGraph", key: dg.AssetKey, late: Parts) -> set[str | None]:
    """The partitions below late ones; a summary of partitions is below any of them."""
    if graph.get(key).partitions_def is None:
        return {None} if any(late.get(each) for each in graph.get(key).parent_keys) else set()
    return parts_below(graph, key, late)

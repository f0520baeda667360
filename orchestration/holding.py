"""What has to wait: wishes below other wishes, or below runs that are not over.

A run reports its partitions one by one. What comes after them would be asked for one by one too,
and be many runs instead of one. So a partition waits until no partition that it comes from is asked
for or in a run, be it that the run has made that one already.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.run_plans import partitions_of

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

Parts = dict[dg.AssetKey, set[str | None]]
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


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
        at_work = at_work and at_work & live_partitions(graph, key)  # the catalog may have changed
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


def live_partitions(graph: "AssetGraph", key: dg.AssetKey) -> set[str | None]:
    """Return the partitions that an asset has today; None alone where it is not partitioned."""
    definition = graph.get(key).partitions_def
    if definition is None:
        return {None}
    return {str(each) for each in definition.get_partition_keys()}


def parts_below(graph: "AssetGraph", key: dg.AssetKey, late: Parts) -> set[str | None]:
    """Return the partitions of an asset that depend on late ones of its parents.

    Summaries (no partitions) of partitioned parents are never late by them: they sum up what there
    is, and the conditions ask for them again when that changes.
    """
    definition, found = graph.get(key).partitions_def, set[str | None]()
    for parent in graph.get(key).parent_keys:
        parts, of_parent = late.get(parent, set()), graph.get(parent).partitions_def
        if not parts or (definition is None and of_parent is not None):
            continue
        if definition is None:
            return {None}
        if of_parent is None:
            return live_partitions(graph, key)
        subset = of_parent.subset_with_partition_keys([str(each) for each in parts])
        mapping = graph.get_partition_mapping(key, parent)
        below = mapping.get_downstream_partitions_for_partitions(subset, of_parent, definition)
        found |= {str(each) for each in below.get_partition_keys()}
    return found


def busy_parts(instance: dg.DagsterInstance, graph: "AssetGraph", runs: list[str]) -> Parts:
    """Return the partitions of unfinished runs, by asset; the ids of those runs go to `runs`."""
    busy: Parts = {}
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED)):
        keys = (run.asset_selection or set()) & graph.materializable_asset_keys
        runs += [run.run_id] if keys else []
        for key in keys:
            definition = graph.get(key).partitions_def
            parts = {None} if definition is None else {*partitions_of(run.tags, definition)}
            busy.setdefault(key, set()).update(parts)
    return busy


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

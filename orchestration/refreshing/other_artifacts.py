"""Partitions of which the store names another artifact than the one that Dagster knows.

An older copy of the store was put back; a run that was killed, or another instance or catalog, has
written there. Dagster sees no change then, and would take what is old for up to date.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from assets.frame.data_versions import DATA_VERSION, is_of_inputs_alone, names_artifact
from assets.work import names
from orchestration.holding import Parts

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

_COMPARED = {
    "model", "task_vector", "model_scores", "leaderboard",
    names.MERGE_PLAN, names.MERGED_CHECKPOINT, names.STEP, names.SCORES, names.SEARCH,
}  # fmt: skip
"""What assets are whose data version says an artifact. Champions and the site are pointed to by
commands too: champions follow the leaderboard, the site follows all."""

Digests = Mapping[str | None, Collection[str]]
"""Digests that refs of one asset point to, by partition: of several suites, several."""


def other_artifacts(
    instance: dg.DagsterInstance, graph: "AssetGraph", whole: Mapping[dg.AssetKey, Digests]
) -> Parts:
    """Return the partitions whose name in the store stands for something else than Dagster knows.

    `whole` are those that both have made. A merge plan is about a set, and is other where it is
    no recipe's.
    """
    others: Parts = {}
    plans: dict[dg.AssetKey, set[str | None]] = {}
    sound: set[str | None] = set()
    for key, digests in whole.items():
        kind = names.kind_of(key.to_user_string())
        if kind not in _COMPARED or not digests:
            continue
        agreeing, differing = _compared(instance, graph, key, digests)
        if kind == names.MERGE_PLAN:
            sound |= agreeing
            plans[key] = differing
        elif differing:
            others[key] = differing
    others |= {key: left for key, found in plans.items() if (left := found - sound)}
    kinds = {names.kind_of(key.to_user_string()) for key in others}
    following = ({"catalog_site"} if kinds else set()) | (
        {names.CHAMPION} if "leaderboard" in kinds else set()
    )
    for key in whole:
        if names.kind_of(key.to_user_string()) in following:
            others[key] = {None}
    return others


def _compared(
    instance: dg.DagsterInstance, graph: "AssetGraph", key: dg.AssetKey, digests: Digests
) -> tuple[set[str | None], set[str | None]]:
    """The partitions whose data versions agree with their refs, and those that differ."""
    merged = names.kind_of(key.to_user_string()) in (names.MERGED_CHECKPOINT, names.STEP)
    versions = _versions(instance, graph, key, [each for each in digests if each is not None])
    agreeing: set[str | None] = set()
    differing: set[str | None] = set()
    for partition, named in digests.items():
        if len(named) == 1:  # several have the version of all together
            (digest,) = named
            version = versions.get(partition)
            if version and not (merged and is_of_inputs_alone(version)):
                agrees = names_artifact(version, digest)
                (agreeing if agrees else differing).add(partition)
    return agreeing, differing


def _versions(
    instance: dg.DagsterInstance, graph: "AssetGraph", key: dg.AssetKey, partitions: Iterable[str]
) -> dict[str | None, str | None]:
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    if graph.get(key).partitions_def is None:
        event = instance.get_latest_materialization_event(key)
        made = event.asset_materialization if event is not None else None
        return {None: (made.tags or {}).get(DATA_VERSION) if made is not None else None}
    wanted = set(partitions)
    tags = instance.event_log_storage.get_latest_tags_by_partition(key, kind, [DATA_VERSION])
    return {each: found.get(DATA_VERSION) for each, found in tags.items() if each in wanted}

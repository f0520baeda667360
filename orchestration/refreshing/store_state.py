"""What Dagster's instance and the artifact store say of the same partitions, side by side.

Where they differ, the store is right. What Dagster believes made and the store lacks (a store that
was lost or exchanged, a manifest or a name that is gone, a part that was set aside) is asked for
again, by `ronghe refresh`. What the store has and Dagster does not know is found there when it is
asked for. `ronghe doctor` shows both.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.data_versions import DATA_VERSION
from assets.work import names
from orchestration.holding import busy_parts
from orchestration.refreshing.other_artifacts import Digests, other_artifacts
from orchestration.settings import Settings
from resources.store import ArtifactStore

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

REMEMBERED = "ronghe.store"
"""Key of what an instance remembers: the store that it filled."""
KNOWN_REFS = "known-refs.json"
"""File in DAGSTER_HOME: what every ref pointed to when it was read, so that it is read once."""
_SCORED = "model_scores"

_NO_NOTE = (AttributeError, LookupError, TypeError)
"""What a document raises that is not of the form of a note."""

Partitions = dict[dg.AssetKey, set[str | None]]
Pointed = dict[str, dict[str | None, tuple[str, str]]]
"""What refs point to: (kind, digest), by asset and partition."""


@dataclass
class StoreState:
    """A store state says what differs. `lacking` is what Dagster alone believes made.

    `unknown` is what only the store has; `damaged` are refs that cannot be read, each with its way
    out; `notes` are for people. `made` counts what both have.
    """

    lacking: Partitions = field(default_factory=dict[dg.AssetKey, "set[str | None]"])
    unknown: Partitions = field(default_factory=dict[dg.AssetKey, "set[str | None]"])
    made: dict[dg.AssetKey, int] = field(default_factory=dict[dg.AssetKey, int])
    damaged: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def what_the_store_lacks(
    instance: dg.DagsterInstance, graph: "AssetGraph", settings: Settings
) -> StoreState:
    """Compare both for a refresh; takes over refs that this instance's own runs had pointed.

    `settings` name their catalog. Raises StoreError where the store cannot be read, or can be none.
    """
    store = ArtifactStore.open(settings.store, catalog=settings.catalog_name)
    store.upkeep.require(may_be_new=True)
    notes = [*_new_here(store), *_earlier_notes(instance, store)]
    state = compare(instance, graph, store, settings.dagster_home)
    state.notes[:0] = notes
    remember(instance, store)
    return state


def compare(
    instance: dg.DagsterInstance, graph: "AssetGraph", store: ArtifactStore, home: Path
) -> StoreState:
    """Compare what Dagster believes made with what the store has of this catalog."""
    state = StoreState()
    both: dict[dg.AssetKey, Digests] = {}
    pointed, damaged = _pointed(store, home)
    state.damaged = list(damaged.values())
    there = {
        kind: set(store.digests(kind))
        for kind in {kind for refs in pointed.values() for kind, _ in refs.values()}
    }
    for key in graph.toposorted_asset_keys:
        asset = key.to_user_string()
        if not graph.get(key).is_materializable:
            continue
        refs = _refs_of(pointed, asset)
        whole = {each for each, (kind, digest) in refs.items() if digest in there[kind]}
        made, live = _made(instance, graph, key)
        lacking = (made & refs.keys()) - whole
        named = names.kind_of(asset) != names.CHAMPION or _is_named(instance, key)
        if named and asset != names.RUN_SCORES:  # of which those that no suite asks have no name
            absent = made - refs.keys()  # or damaged, which is told and not made again
            lacking |= {each for each in absent if store.upkeep.key_of(asset, each) not in damaged}
        both[key] = _digests_of(pointed, asset, made & whole & live)
        state.made[key] = len((made & live) - lacking)
        if lacking & live:
            state.lacking[key] = lacking & live
        if unknown := (whole & live) - made:
            state.unknown[key] = unknown
    others = other_artifacts(instance, graph, both)
    at_work = busy_parts(instance, graph, []) if others else {}  # pointed to, and not told yet
    count = 0
    for key, parts in others.items():
        found = parts - at_work.get(key, set()) - state.lacking.get(key, set())
        count += len(found)
        state.made[key] -= len(found)
        if found:
            state.lacking[key] = state.lacking.get(key, set()) | found
    state.notes += _told(instance, store, sum(map(len, state.lacking.values())), count)
    return state


def _told(
    instance: dg.DagsterInstance, store: ArtifactStore, lacking: int, others: int
) -> Iterator[str]:
    """Say how many partitions the store lacks, and of how many of these it has another one."""
    where, again = _other_store(instance, store), "`ronghe refresh` makes them again"
    made = "that Dagster's instance believes made"
    if lacking and where:
        yield f"{where}: {lacking} partitions {made} are not there, or are others; {again}"
        return
    where = f"artifact store {store.uri}"
    if others:
        yield (
            f"{where} names other artifacts than Dagster's instance knows ({others} partitions):"
            " an older copy of the store was put back, or a run that was killed, another instance"
            f" or another catalog on this DAGSTER_HOME wrote there; {again}"
        )
    if lacking > others:
        yield (
            f"{where} has lost something: {lacking - others} partitions {made} are not there;"
            f" {again}"
        )


def remember(instance: dg.DagsterInstance, store: ArtifactStore) -> None:
    """Have the instance remember which store it fills."""
    identity = store.upkeep.identity
    if identity is not None:
        note = {"id": identity, "uri": store.uri, "catalog": store.namespace.name}
        instance.daemon_cursor_storage.set_cursor_values({REMEMBERED: json.dumps(note)})


def remembered(instance: dg.DagsterInstance) -> Mapping[str, Any]:
    """Return what the instance remembers of the store that it filled; empty where nothing."""
    values = instance.daemon_cursor_storage.get_cursor_values({REMEMBERED})
    with contextlib.suppress(ValueError, RecursionError):
        note = json.loads(values.get(REMEMBERED, "{}"))
        return note if isinstance(note, dict) else {}
    return {}


def _other_store(instance: dg.DagsterInstance, store: ArtifactStore) -> str | None:
    """Say that it is not the store, or the catalog in it, that the instance filled."""
    before, now = remembered(instance), store.upkeep.identity
    named = store.namespace.name
    if before and before.get("id") != now:
        what = "is empty" if now is None else "is another one"
        return f"artifact store {store.uri} {what} than this instance filled ({before.get('uri')})"
    if before and before.get("catalog") != named:
        return (
            f"artifact store {store.uri} knows this catalog as '{before.get('catalog')}', and it is"
            f" called '{named}' now (`ronghe adopt-refs --from {before.get('catalog')}` moves its"
            " names; if these are two catalogs, give each a DAGSTER_HOME of its own)"
        )
    return None


def _pointed(store: ArtifactStore, home: Path) -> tuple[Pointed, dict[str, str]]:
    """What every ref of the catalog points to, and by key what is wrong with unreadable ones.

    A ref that was read before, and was not written since, is not read again.
    """
    upkeep, pointed, damaged = store.upkeep, Pointed(), dict[str, str]()
    identity, known = upkeep.identity, dict[str, Any]()
    with contextlib.suppress(OSError, ValueError, RecursionError, *_NO_NOTE):
        noted = json.loads((home / KNOWN_REFS).read_bytes())
        known = dict(noted["refs"]) if noted.get("store") == identity else {}
    stamps = {each.key: [each.tag, each.modified, each.size] for each in upkeep.ref_entries()}
    fresh = [key for key, stamp in stamps.items() if not _is_known(known.get(key), stamp)]
    lines = {key: line for key, line in known.items() if key in stamps and key not in fresh}
    earlier = upkeep.earlier_keys()
    for stored in upkeep.read_refs([(store.namespace.name, key) for key in fresh], earlier):
        if stored.ref is None:
            damaged[stored.key] = str(stored.fault)
            continue
        if stored.catalog not in (None, store.namespace.name):
            continue
        said = [stored.ref.asset, stored.ref.partition, stored.ref.kind, stored.ref.digest]
        lines[stored.key] = [stamps.get(stored.key), *said]
    for line in sorted(lines.values(), key=lambda line: line[0] is not None):  # earlier ones first
        _, asset, partition, kind, digest = line
        pointed.setdefault(names.present_name(asset), {})[partition] = (kind, digest)
    if fresh or len(known) != len(stamps):
        kept = {key: line for key, line in lines.items() if line[0] is not None}
        _write(home / KNOWN_REFS, {"store": identity, "refs": kept})
    return pointed, damaged


def _is_known(line: Any, stamp: list[Any]) -> bool:
    return isinstance(line, list) and len(line) == 5 and line[0] == stamp


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Write at one stroke; where the folder cannot be written, refs are read again another time."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        try:
            temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _refs_of(pointed: Pointed, asset: str) -> dict[str | None, tuple[str, str]]:
    """The refs of an asset. A set's plan is one for all recipes; models' scores are by suite."""
    if names.kind_of(asset) == names.MERGE_PLAN:
        return pointed.get(names.MERGE_PLAN, {})
    if asset != _SCORED:
        return pointed.get(asset, {})
    suites = [refs for name, refs in pointed.items() if name.startswith(f"{_SCORED}/")]
    return {each: at for refs in suites for each, at in refs.items()}


def _digests_of(pointed: Pointed, asset: str, wanted: set[str | None]) -> Digests:
    """The digests that an asset's refs point to; a model has a ref of scores for each suite."""
    if asset != _SCORED:
        return {each: {at[1]} for each, at in _refs_of(pointed, asset).items() if each in wanted}
    found: dict[str | None, set[str]] = {}
    for name in (name for name in pointed if name.startswith(f"{_SCORED}/")):
        for each, at in pointed[name].items():
            if each in wanted:
                found.setdefault(each, set()).add(at[1])
    return found


def _made(
    instance: dg.DagsterInstance, graph: "AssetGraph", key: dg.AssetKey
) -> tuple[set[str | None], set[str | None]]:
    """The partitions that Dagster believes made, and those that are live."""
    definition = graph.get(key).partitions_def
    if definition is None:
        made = instance.get_latest_materialization_event(key) is not None
        return ({None} if made else set()), {None}
    live: set[str | None] = {str(each) for each in definition.get_partition_keys()}
    return {str(each) for each in instance.get_materialized_partitions(key)}, live


def _is_named(instance: dg.DagsterInstance, key: dg.AssetKey) -> bool:
    """Whether Dagster believes that there is a champion; without one that passes, none is named."""
    event = instance.get_latest_materialization_event(key)
    made = event.asset_materialization if event is not None else None
    return made is not None and (made.tags or {}).get(DATA_VERSION, "none") != "none"


def _new_here(store: ArtifactStore) -> Iterable[str]:
    """Say that a catalog begins anew beside others: it may be one of them under another name."""
    name, known = store.namespace.name, store.upkeep.catalogs()
    if known and name not in known:
        yield (
            f"catalog '{name}' is new in {store.uri}, which holds the names of {', '.join(known)}."
            " If it is one of these, say its name (`name:` in models.yaml), or have its names"
            " moved: `ronghe adopt-refs --from NAME`"
        )


def _earlier_notes(instance: dg.DagsterInstance, store: ArtifactStore) -> Iterable[str]:
    """Take refs without a catalog that this instance's runs had pointed, and say whose they are."""
    upkeep, name = store.upkeep, store.namespace.name
    count, owner = upkeep.earlier()
    if not count:
        return []
    if owner is None and any(
        stored.ref is not None
        and stored.ref.current.run is not None
        and instance.get_run_by_id(stored.ref.current.run) is not None
        for stored in upkeep.read_refs([], upkeep.earlier_keys()[:200])
    ):
        owner = name if upkeep.own_earlier() else upkeep.earlier()[1]
    if owner == name:
        return [
            f"{count} refs of the time before catalogs had names are those of catalog '{name}';"
            " `ronghe adopt-refs` moves them below its name"
        ]
    if owner is None:
        return [
            f"{count} refs in {store.uri} are of the time before catalogs had names, and nobody's"
            f" yet. If they are those of this catalog ('{name}'), run `ronghe adopt-refs`"
        ]
    return []

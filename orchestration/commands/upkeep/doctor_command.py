"""`ronghe doctor`: what Dagster's instance and the artifact store say of each other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from merge_ops.errors import RongheError
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, print_json
from orchestration.commands.store_tables import make_console, print_table
from orchestration.settings import Settings, load_settings
from resources.errors import ResourceError

if TYPE_CHECKING:
    from dagster import AssetKey

    from orchestration.refreshing.store_state import StoreState
    from resources.store import ArtifactStore

MOST_SHOWN = 3
"""Partitions of one asset that are named."""


def doctor(as_json: bool = False) -> None:
    """Print what this machine has and lacks; then, asset by asset, what Dagster and the store have.

    Nothing is changed. Status 1 when the store lacks what Dagster believes made, or a ref cannot be
    read; what the machine lacks is no fault. Raises CatalogError, and StoreError where the store
    cannot be read; the machine is told before.
    """
    from orchestration.commands.upkeep.machine_facts import COLUMNS, machine_facts

    about, console = machine_facts(load_settings()), make_console()
    machine = [each.to_json() for each in about]
    if not as_json:
        print_table(console, "this machine", COLUMNS, [each.row for each in about])
    settings = load_settings()
    try:
        settings = named_settings(settings)
        store, state, before = _look(settings)
    except (RongheError, ResourceError) as error:
        if as_json:
            print_json({"machine": machine, "fault": str(error)})
        raise
    count, owner = store.upkeep.earlier()
    told = [*state.notes, *state.damaged]
    if state.unknown:
        told.append(
            "What only the store has is found there, not made again, when `ronghe refresh` asks"
        )
    if count and owner in (None, settings.catalog_name):
        told.append("`ronghe adopt-refs` moves the refs without a catalog below this one's name")
    if as_json:
        document = {
            "machine": machine,
            "store": store.uri,
            "store_id": store.upkeep.identity,
            "catalog": settings.catalog_name,
            "catalogs": list(store.upkeep.catalogs()),
            "dagster_home": str(settings.dagster_home),
            "filled_before": before or None,
            "refs_without_catalog": count,
            "assets": {key.to_user_string(): each for key, each in _assets(state).items()},
            "notes": told,
        }
        print_json(document)
    else:
        filled = f"{before.get('uri')} ({before.get('id')})" if before else "no store yet"
        facts = [
            ("artifact store", f"{store.uri} ({store.upkeep.identity or 'never used'})"),
            ("catalog", f"{settings.catalog_name} ({settings.catalog})"),
            ("catalogs in the store", ", ".join(store.upkeep.catalogs()) or "none"),
            ("Dagster's instance", str(settings.dagster_home)),
            ("it filled", filled),
        ]
        if count:
            facts.append(("refs without a catalog", f"{count}, of {owner or 'nobody yet'}"))
        print_table(console, "", ("what", "which"), facts)
        _print_assets(console, state)
        for note in told:
            console.print(note, soft_wrap=True)
    if state.lacking or state.damaged:
        raise SystemExit(1)
    if not told and not as_json:
        console.print(f"Dagster and the store agree on {sum(state.made.values())} partitions.")


def _look(settings: Settings) -> "tuple[ArtifactStore, StoreState, Mapping[str, Any]]":
    """The catalog's store, how it differs from Dagster, and which store Dagster filled before."""
    from dagster import partition_loading_context

    from orchestration.definitions import build_definitions
    from orchestration.refreshing.instance import open_instance
    from orchestration.refreshing.store_state import compare, remembered

    store = open_store(settings, may_be_new=True)
    graph = build_definitions(settings).resolve_asset_graph()
    with open_instance(settings) as instance, partition_loading_context(None, instance):
        state = compare(instance, graph, store, settings.dagster_home)
        return store, state, remembered(instance)


def _assets(state: "StoreState") -> "dict[AssetKey, dict[str, Any]]":
    """How the partitions of each asset stand, where there are any."""
    return {
        key: {
            "in_both": made,
            "missing_in_the_store": sorted(state.lacking.get(key, ()), key=str),
            "unknown_to_dagster": sorted(state.unknown.get(key, ()), key=str),
        }
        for key, made in state.made.items()
        if made or key in state.lacking or key in state.unknown
    }


def _print_assets(console: "PlainConsole", state: "StoreState") -> None:
    rows = [
        (
            key.to_user_string(),
            str(each["in_both"]),
            _shown(each["missing_in_the_store"]),
            _shown(each["unknown_to_dagster"]),
        )
        for key, each in _assets(state).items()
    ]
    if rows:
        columns = ("asset", "in both", "missing in the store", "unknown to Dagster")
        print_table(console, "partitions", columns, rows)


def _shown(partitions: list[str | None]) -> str:
    if not partitions:
        return "–"
    named = [each for each in partitions if each is not None][:MOST_SHOWN]
    more = ", …" if len(partitions) > len(named) and named else ""
    return f"{len(partitions)}: {', '.join(named)}{more}" if named else str(len(partitions))

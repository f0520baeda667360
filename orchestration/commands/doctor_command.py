"""`ronghe doctor`: what Dagster's instance and the artifact store say of each other."""

import json

from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.store_tables import make_console, print_table
from orchestration.settings import load_settings

MOST_SHOWN = 3
"""Partitions of one asset that are named."""


def doctor(as_json: bool = False) -> None:
    """Print what this machine has and lacks; then, asset by asset, what Dagster and the store have.

    Nothing is changed. Status 1 when the store lacks what Dagster believes made, or a ref cannot be
    read; what the machine lacks is no fault. With `as_json` the machine alone is told. Raises
    CatalogError, and StoreError where the store cannot be read.
    """
    from orchestration.commands.machine_facts import COLUMNS, machine_facts

    about = machine_facts(load_settings())
    if as_json:
        print(json.dumps([each.to_json() for each in about], ensure_ascii=False))  # noqa: T201
        return
    print_table(make_console(), "this machine", COLUMNS, [each.row for each in about])
    from dagster import partition_loading_context

    from orchestration.definitions import build_definitions
    from orchestration.refreshing.refresh import open_instance
    from orchestration.refreshing.store_state import compare, remembered

    settings = named_settings(load_settings())
    console, store = make_console(), open_store(settings)
    graph = build_definitions(settings).resolve_asset_graph()
    with open_instance(settings) as instance, partition_loading_context(None, instance):
        state = compare(instance, graph, store, settings.dagster_home)
        before = remembered(instance)
    count, owner = store.upkeep.earlier()
    facts = [
        ("artifact store", f"{store.uri} ({store.upkeep.identity or 'never used'})"),
        ("catalog", f"{settings.catalog_name} ({settings.catalog})"),
        ("catalogs in the store", ", ".join(store.upkeep.catalogs()) or "none"),
        ("Dagster's instance", str(settings.dagster_home)),
        ("it filled", f"{before.get('uri')} ({before.get('id')})" if before else "no store yet"),
    ]
    if count:
        facts.append(("refs without a catalog", f"{count}, of {owner or 'nobody yet'}"))
    print_table(console, "", ("what", "which"), facts)
    rows = [
        (key.to_user_string(), str(made), _shown(state.lacking.get(key)),
         _shown(state.unknown.get(key)))
        for key, made in state.made.items()
        if made or key in state.lacking or key in state.unknown
    ]  # fmt: skip
    if rows:
        columns = ("asset", "in both", "missing in the store", "unknown to Dagster")
        print_table(console, "partitions", columns, rows)
    told = [*state.notes, *state.damaged]
    if state.unknown:
        told.append(
            "What only the store has is found there, not made again, when `ronghe refresh` asks"
        )
    if count and owner in (None, settings.catalog_name):
        told.append("`ronghe adopt-refs` moves the refs without a catalog below this one's name")
    for note in told:
        console.print(note, soft_wrap=True)
    if state.lacking or state.damaged:
        raise SystemExit(1)
    if not told:
        console.print(f"Dagster and the store agree on {sum(state.made.values())} partitions.")


def _shown(partitions: "set[str | None] | None") -> str:
    if not partitions:
        return "–"
    named = sorted(each for each in partitions if each is not None)[:MOST_SHOWN]
    more = ", …" if len(partitions) > len(named) and named else ""
    return f"{len(partitions)}: {', '.join(named)}{more}" if named else str(len(partitions))

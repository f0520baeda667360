"""`ronghe prune`: weights of candidates go, their manifests and scores stay."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from assets.work.ranking.pruning import parse_keep, prune
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import print_json, say
from orchestration.commands.store_tables import SHORT, make_console, print_table, size_text
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from assets.work.merging.merging import MergeJob
    from orchestration.catalogs import Catalog

MOST_HELD = 8
"""Checkpoints that stay against one's wish and are named each."""


def run_prune(keep: str, dry_run: bool, as_json: bool = False) -> None:
    """Prune what is not kept, and say what it frees; with `dry_run` only say it."""
    from merge_ops.stream import StreamSettings
    from orchestration.catalogs import load_catalog
    from orchestration.definitions import contest_of

    keeping, settings, console = parse_keep(keep), load_settings(), make_console()
    store, catalog = open_store(settings), load_catalog(settings.catalog)
    stream = StreamSettings(settings.threads, settings.device, settings.memory)
    report = prune(store, contest_of(catalog), _jobs(catalog), keeping, stream, dry_run)
    if as_json:
        told = {"store": store.uri, "dry_run": dry_run, "bytes": report.nbytes, **asdict(report)}
        print_json(told)
        return
    rows = [
        (each.asset, each.partition, each.digest[:SHORT], size_text(each.nbytes))
        for each in report.pruned
    ]
    if rows:
        title = "would be pruned" if dry_run else "pruned"
        print_table(console, title, ("asset", "partition", "digest", "size"), rows)
    verb = "would be freed" if dry_run else "freed"
    say(
        console,
        f"{size_text(report.nbytes)} {verb} in {store.uri}; {report.kept} checkpoints stay written"
        f" (champions{f', the first {keeping.top} of each suite' if keeping.top else ''}, and what"
        " other names point to)",
    )
    held = list(report.held.items())
    for name, why in held[:MOST_HELD]:
        say(console, f"stays: {name}: {why}")
    if len(held) > MOST_HELD:
        say(console, f"and {len(held) - MOST_HELD} more stay")
    if rows and not dry_run:
        say(console, "`ronghe materialize` writes one again, byte for byte")


def _jobs(catalog: "Catalog") -> "Iterator[MergeJob]":
    """One job an expert set of each recipe that is scored: others have no candidates."""
    from orchestration.definitions import contest_of, merges_of

    recipes = {recipe.name: recipe for recipe in contest_of(catalog).recipes}
    for merge in merges_of(catalog):
        if merge.name not in recipes:
            continue
        by_set: dict[str, dict[str, str]] = {}
        for partition, (experts, coefficient) in recipes[merge.name].points.items():
            by_set.setdefault(experts, {})[coefficient] = partition
        for experts, points in by_set.items():
            yield merge.job(experts, points)

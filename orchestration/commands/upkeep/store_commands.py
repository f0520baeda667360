"""`ronghe gc`, `ronghe refs` and `ronghe adopt-refs`: names in the store, and what is left over."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from assets.work.names import present_name, refs_of
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import print_json, progress_bar
from orchestration.commands.store_tables import (
    SHORT,
    make_console,
    period_text,
    print_table,
    size_text,
)
from orchestration.leftovers import remove_leftovers
from orchestration.options import period, read
from resources.store import ArtifactStore

if TYPE_CHECKING:
    from resources.store import Ref, RefEntry


def collect(dry_run: bool, grace: str, as_json: bool = False) -> None:
    """List what killed runs left and, unless `dry_run`, remove it."""
    seconds = read("ronghe gc", "--grace", grace, period)
    console, store = make_console(), open_store(may_be_new=True)
    console.quiet = as_json
    with progress_bar(console) as bar:
        task = bar.add_task("removing", total=None, visible=not dry_run)
        report = store.gc(
            seconds, dry_run, lambda done, total: bar.update(task, completed=done, total=total)
        )
    left, absence = [] if dry_run else remove_leftovers(), store.upkeep.absence()
    if as_json:
        told = {"store": store.uri, **asdict(report), "bytes": report.nbytes, "absent": absence}
        print_json({**told, "left_overs": list(map(str, left))})
        return
    rows = [
        (
            piece.attempt or "left-overs",
            str(len(piece.files)),
            str(len(piece.pending)),
            size_text(piece.nbytes),
            period_text(piece.idle_seconds),
        )
        for piece in report.garbage
    ]
    if rows:
        columns = ("attempt", "files", "uploads", "size", "silent for")
        print_table(console, "to be removed" if dry_run else "removed", columns, rows)
    for path in left:
        console.print(f"removed {path}", soft_wrap=True)
    verb = "would be removed" if dry_run else "removed"
    stay = f"{report.kept_attempts} attempts stay"
    console.print(
        f"{size_text(report.nbytes)} {verb} from {store.uri}; {absence or stay}",
        soft_wrap=True,
    )


def history(
    asset: str, partition: str | None, catalog: str | None = None, as_json: bool = False
) -> None:
    """Print every change of the asset's refs, the oldest of each partition first.

    They are those of `catalog`, by default of the environment's. Raises SettingsError for what has
    no refs. Status 1 when one of them cannot be read.
    """
    console, store = make_console(), open_store()
    if catalog is not None:
        store = _store_of(catalog, store)
    given, asset = asset, present_name(asset)
    if given != asset and not as_json:
        console.print(f"{given} is called {asset} now", soft_wrap=True)
    refs, damaged = refs_of(store, asset), store.damaged_refs(asset)
    if not refs and not damaged:
        others = [each for each in store.upkeep.catalogs() if each != store.namespace.name]
        known = f"; other catalogs there (--catalog): {', '.join(others)}" if others else ""
        problem = (
            f"is {asset!r}, which has no refs in {store.uri}; materialize it first, and give its"
            " whole name, such as model, <recipe>/merged_checkpoint or <recipe>/champion"
        )
        raise SettingsError("ronghe refs", [Fault("ASSET", f"{problem}{known}")])
    if partition is not None and partition not in refs and partition not in damaged:
        known = sorted(key for key in refs if key is not None)
        shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        problem = f"is {partition!r}.{did_you_mean(partition, known)} {asset} has {shown or 'none'}"
        raise SettingsError("ronghe refs", [Fault("PARTITION", problem)])
    wanted = sorted(
        (key for key in refs if partition is None or key == partition), key=lambda key: key or ""
    )
    unreadable = [str(each) for key, each in damaged.items() if partition in (None, key)]
    if as_json:
        document = [_ref(key, refs[key]) for key in wanted]
        print_json({"asset": asset, "refs": document, "unreadable": unreadable})
        if unreadable:
            raise SystemExit(1)
        return
    rows = [
        (
            key or "–", entry.at, entry.kind, entry.digest[:SHORT], entry.run or "–", _said(entry),
            entry.by or "–",
        )
        for key in wanted
        for entry in refs[key].history
    ]  # fmt: skip
    columns = ("partition", "at", "kind", "digest", "run", "fields", "by")
    print_table(console, asset, columns, rows)
    for problem in unreadable:
        console.print(problem, soft_wrap=True)
    if unreadable:
        raise SystemExit(1)


def _ref(partition: str | None, ref: "Ref") -> dict[str, Any]:
    """A name with its whole history, as plain data; what it points to now stands last."""
    history = [{**asdict(entry), "fields": dict(entry.fields)} for entry in ref.history]
    return {"partition": partition, "vacant": ref.vacant, "history": history}


def adopt(source: str | None, dry_run: bool, as_json: bool = False) -> None:
    """Move refs without a catalog, or those of the catalog `source`, below this catalog's name.

    Status 1 when nothing was moved because this catalog has refs of its own there, or when some
    could not be read.
    """
    console, store = make_console(), open_store()
    name = store.namespace.name
    adopted = store.upkeep.adopt(source, present_name, dry_run)
    if as_json:
        print_json({"catalog": name, "store": store.uri, "dry_run": dry_run, **asdict(adopted)})
        if adopted.conflicts or adopted.damaged:
            raise SystemExit(1)
        return
    for columns, pairs in (
        ("would be moved" if dry_run else "moved", adopted.moved),
        ("in the way: this catalog points elsewhere", adopted.conflicts),
    ):
        if pairs:
            rows = [(asset, partition or "–") for asset, partition in pairs]
            print_table(console, columns, ("asset", "partition"), rows)
    for problem in adopted.damaged:
        console.print(f"left: {problem}", soft_wrap=True)
    what = "refs without a catalog" if source is None else f"refs of catalog '{source}'"
    if adopted.conflicts:
        console.print(
            f"Nothing was moved: catalog '{name}' has newer refs of the same names that did not"
            f" come from these {what}. If they are this catalog's all the same, first move its own"
            f" away (RONGHE_CATALOG_NAME=OTHER ronghe adopt-refs --from {name}).",
            soft_wrap=True,
        )  # fmt: skip
        raise SystemExit(1)
    verb = "would be moved" if dry_run else "were moved"
    newer = f"; {len(adopted.joined)} of them had newer ones, which stay" if adopted.joined else ""
    told = f"{len(adopted.moved)} {what} {verb} to catalog '{name}' in {store.uri}{newer}"
    console.print(told, soft_wrap=True)
    if adopted.damaged:
        raise SystemExit(1)


def _store_of(catalog: str, store: ArtifactStore) -> ArtifactStore:
    known = store.upkeep.catalogs()
    if catalog not in known:
        problem = f"is {catalog!r}.{did_you_mean(catalog, known)} {store.uri} has"
        told = f"{problem} {', '.join(known) or 'no catalog'}"
        raise SettingsError("ronghe refs", [Fault("--catalog", told)])
    return ArtifactStore.open(store.uri, catalog=catalog)


def _said(entry: "RefEntry") -> str:
    return ", ".join(f"{name}={_plain(value)}" for name, value in entry.fields.items()) or "–"


def _plain(value: object) -> str:
    """A value in a cell: of a mapping with digests its names, which is what a reader looks for."""
    if isinstance(value, dict):
        return "+".join(map(str, value))
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)

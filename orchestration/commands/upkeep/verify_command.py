"""`ronghe verify`: what in the store is not as it was published, and setting it aside."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.work.records.damage import MODELS, need_fault, plan_repair
from assets.work.records.stored_names import HEX, resolve_name
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import print_json, progress_bar
from orchestration.commands.store_tables import (
    LEAST,
    SHORT,
    make_console,
    print_table,
    size_text,
)
from resources.store import ArtifactStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Name = tuple[str, str]


def verify(
    named: Sequence[str],
    kind: str | None,
    repair: bool = False,
    made: bool = False,
    as_json: bool = False,
) -> None:
    """Hash the chosen artifacts again, all by default, and look at refs and notes beside them.

    `named` are names of the catalog, digests, or their first characters. With `repair`, what is
    bad is set aside. With `made`, what was made from the chosen artifacts is set aside too, sound
    or not. Status 1 when something is not as published, and stays so. Raises SettingsError for an
    artifact that is not there, MissingArtifactError for a name that stands for nothing.
    """
    console, store = make_console(), open_store()
    console.quiet = as_json
    if made and not (named and repair):
        problem = "needs --repair, and the digests of what everything else was made from"
        raise SettingsError("ronghe verify", [Fault("--made-from", problem)])
    names = store.upkeep.manifests()
    chosen = _chosen(store, names, named, kind)
    manifests = store.upkeep.read_manifests(names if repair else chosen)
    bad, wrong, unjudged, nbytes = _look(console, store, chosen, manifests)
    rows = [(*name, problem) for name, problem in sorted({**bad, **unjudged}.items())]
    refs = [] if named or kind else _refs(store, set(names))
    if rows:
        print_table(console, "not as published", ("kind", "digest", "problem"), rows)
    if refs:
        columns = ("catalog", "asset", "partition", "problem")
        print_table(console, "names and notes", columns, refs)
    good = len(chosen) - len(rows)
    plain = f"{good} of {len(chosen)} artifacts in {store.uri} are as published"
    console.print(f"{plain} ({size_text(nbytes)} hashed)", soft_wrap=True)
    repaired: dict[str, Any] = {}
    if repair:
        sound = {name: each for name, each in manifests.items() if isinstance(each, dict)}
        asked = [*wrong, *(chosen if made else ())]
        repaired = _repair(console, store, bad, asked, sound)
    elif rows or refs:
        console.print(
            "`ronghe verify --repair` sets aside what is bad, and what was made from wrong bytes;"
            " the next `ronghe refresh` makes it again. Check the disks.",
            soft_wrap=True,
        )
    if as_json:
        columns = ("catalog", "asset", "partition", "problem")
        told = {
            "store": store.uri,
            "artifacts": len(chosen),
            "bytes_hashed": nbytes,
            "not_as_published": [
                dict(zip(("kind", "digest", "problem"), row, strict=True)) for row in rows
            ],
            "names_and_notes": [dict(zip(columns, row, strict=True)) for row in refs],
        }
        print_json(told | repaired)
    if (repaired.get("left") or unjudged) if repair else (rows or refs):
        raise SystemExit(1)


def _look(
    console: "Console", store: ArtifactStore, chosen: Sequence[Name], manifests: Mapping[Name, Any]
) -> tuple[dict[Name, str], list[Name], dict[Name, str], int]:
    """What is wrong with artifacts; those with wrong bytes; those that cannot be judged; bytes."""
    from resources.errors import DamagedArtifactError, LaterReleaseError, StoreAccessError

    bad: dict[Name, str] = {}
    unjudged: dict[Name, str] = {}
    wrong: list[Name] = []
    nbytes = 0
    with progress_bar(console) as bar:
        task = bar.add_task("hashing", total=len(chosen))
        for name in chosen:
            manifest = manifests.get(name)
            try:
                if isinstance(manifest, DamagedArtifactError):
                    raise manifest
                found, size = _hashed(store, *name, bar)
                nbytes += size
                if found:
                    bad[name] = "; ".join(found)
                    wrong += [name] if name[0] in MODELS else []
                elif (fault := need_fault(store, manifest or {}, bad)) is not None:
                    bad[name] = fault
            except (LaterReleaseError, StoreAccessError) as error:
                unjudged[name] = str(error)
            except DamagedArtifactError as error:
                bad[name] = str(error)
            bar.advance(task)
    return bad, wrong, unjudged, nbytes


def _hashed(store: ArtifactStore, kind: str, digest: str, bar: "Progress") -> tuple[list[str], int]:
    """What is wrong with the files of one artifact, and its bytes."""
    artifact = store.get(kind, digest)
    task = bar.add_task(f"{kind} {digest[:SHORT]}", total=artifact.nbytes)
    try:
        found = store.verify(
            artifact, lambda done, total: bar.update(task, completed=done, total=total)
        )
    finally:
        bar.remove_task(task)
    return found, artifact.nbytes


def _refs(store: ArtifactStore, there: set[Name]) -> list[tuple[str, str, str, str]]:
    """What is wrong with refs of every catalog, with marks, and with the store's own notes."""
    rows: list[tuple[str, str, str, str]] = []
    for stored in store.upkeep.all_refs():
        catalog = stored.catalog or "–"
        if stored.ref is None:
            rows.append((catalog, stored.key, "", str(stored.fault)))
        elif (stored.ref.kind, stored.ref.digest) not in there:
            problem = f"points to {stored.ref.kind} {stored.ref.digest}, which is not there"
            rows.append((catalog, stored.ref.asset, stored.ref.partition or "–", problem))
    rows += [("–", key, "", f"counts as withdrawn: {e}") for key, e in store.marks.unreadable()]
    return [*rows, *(("–", key, "", problem) for key, problem in store.upkeep.note_faults())]


def _repair(
    console: "Console",
    store: ArtifactStore,
    bad: Mapping[Name, str],
    wrong: Sequence[Name],
    manifests: Mapping[Name, Mapping[str, Any]],
) -> dict[str, Any]:
    """Set aside what is bad and what was made from what is wrong, and say what comes next.

    Returns what was `set_aside` and what is `left`, as plain data.
    """
    plan = plan_repair(store, bad, wrong, manifests)
    moved = store.upkeep.set_aside(plan.keys)
    if plan.doubtful:
        rows = [(*name, "made from what is wrong") for name in plan.doubtful]
        print_table(console, "set aside with it", ("kind", "digest", "why"), rows)
    for left in plan.left:
        console.print(f"left as it is: {left}", soft_wrap=True)
    if moved:
        where = "/".join(moved[0].split("/")[:2])
        console.print(
            f"{len(moved)} parts are set aside in {store.uri}/{where}, nothing is deleted. The next"
            " `ronghe refresh` makes them again, and what was made from them.",
            soft_wrap=True,
        )
    else:
        console.print("Nothing was to be set aside.")
    doubtful = [list(name) for name in plan.doubtful]
    return {"set_aside": list(moved), "made_from_wrong": doubtful, "left": list(plan.left)}


def _chosen(
    store: ArtifactStore, names: Sequence[Name], named: Sequence[str], kind: str | None
) -> list[Name]:
    """(kind, digest) of every artifact asked for.

    Raises SettingsError for a kind or digests that are not there, MissingArtifactError for a name
    that stands for nothing.
    """
    kinds = sorted({each for each, _ in names})
    faults: list[Fault] = []
    if kind is not None and kind not in kinds:
        hint = did_you_mean(kind, kinds)
        there = ", ".join(kinds) or "nothing"
        faults.append(Fault("--kind", f"is {kind!r}.{hint} {store.uri} holds {there}"))
    known = [name for name in names if kind is None or name[0] == kind]
    chosen: set[Name] = set()
    for text in named:
        found = _named(store, known, text)
        if not found:
            of = f" of kind {kind}" if kind else ""
            few = f"; give at least {LEAST} characters of a digest"
            none = f"; {store.uri} has no such artifact{of}"
            faults.append(Fault("NAME", f"is {text!r}{few if len(text) < LEAST else none}"))
        chosen |= found
    if faults:
        raise SettingsError("ronghe verify", faults)
    return [name for name in known if not named or name in chosen]


def _named(store: ArtifactStore, known: Sequence[Name], text: str) -> set[Name]:
    """What a digest's first characters or a name of the catalog stand for, among what is known."""
    from resources.errors import MissingArtifactError

    matches = {name for name in known if len(text) >= LEAST and name[1].startswith(text)}
    if matches:
        return matches
    try:
        found = resolve_name(store, text)
    except MissingArtifactError:
        if set(text) <= HEX:
            return set()
        raise
    return {(found.kind, found.digest)} & set(known)

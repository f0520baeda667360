"""`ronghe verify`, `ronghe gc` and `ronghe refs`: what is in the catalog's artifact store."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from assets.work.names import present_name, refs_of
from merge_ops.errors import Fault, SettingsError, did_you_mean, shown
from orchestration.commands.console import PlainConsole, progress_bar
from orchestration.settings import load_settings
from resources.store import ArtifactStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from resources.store import Artifact, RefEntry

SHORT = 12  # characters of a digest that a table shows
LEAST = 8  # characters that name a digest
_PERIOD = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_period(option: str, text: str) -> float:
    """Read seconds from `90s`, `30m`, `24h` or `7d`. Raises SettingsError for other text."""
    found = _PERIOD.fullmatch(text.strip())
    if not found:
        problem = f"is {text!r}; give a number and a unit, such as 90s, 30m, 24h or 7d"
        raise SettingsError("ronghe gc", [Fault(option, problem)])
    return float(found.group(1)) * _SECONDS[found.group(2)]


def verify(digests: Sequence[str], kind: str | None) -> None:
    """Hash the chosen artifacts again, all by default; status 1 when one is not as published."""
    console, store = _console(), _store()
    chosen = _chosen(store, digests, kind)
    problems: list[tuple[str, str, str]] = []
    good = nbytes = 0
    with progress_bar(console) as bar:
        task = bar.add_task("hashing", total=len(chosen))
        for each_kind, digest in chosen:
            found, size = _problems(store, each_kind, digest, bar)
            problems += [(each_kind, digest, problem) for problem in found]
            good, nbytes = good + (not found), nbytes + size
            bar.advance(task)
    if problems:
        _table(console, "not as published", ("kind", "digest", "problem"), problems)
    plain = f"{good} of {len(chosen)} artifacts in {store.uri} are as published"
    console.print(f"{plain} ({_size(nbytes)} hashed)", highlight=False, soft_wrap=True)
    if problems:
        console.print("Materialize what is damaged into a clean store, and check the disks.")
        raise SystemExit(1)


def collect(dry_run: bool, grace: str) -> None:
    """List what killed runs left and, unless `dry_run`, remove it."""
    seconds = parse_period("--grace", grace)
    console, store = _console(), _store()
    with progress_bar(console) as bar:
        task = bar.add_task("removing", total=None, visible=not dry_run)
        report = store.gc(
            seconds, dry_run, lambda done, total: bar.update(task, completed=done, total=total)
        )
    rows = [
        (
            piece.attempt or "left-overs",
            str(len(piece.files)),
            str(len(piece.pending)),
            _size(piece.nbytes),
            _period(piece.idle_seconds),
        )
        for piece in report.garbage
    ]
    if rows:
        columns = ("attempt", "files", "uploads", "size", "silent for")
        _table(console, "to be removed" if dry_run else "removed", columns, rows)
    verb = "would be removed" if dry_run else "removed"
    console.print(
        f"{_size(report.nbytes)} {verb} from {store.uri}; {report.kept_attempts} attempts stay",
        highlight=False,
        soft_wrap=True,
    )


def history(asset: str, partition: str | None) -> None:
    """Print every change of the asset's refs, the oldest of each partition first."""
    console, store = _console(), _store()
    given, asset = asset, present_name(asset)
    if given != asset:
        console.print(f"{given} is called {asset} now", highlight=False, soft_wrap=True)
    refs = refs_of(store, asset)
    if not refs:
        problem = (
            f"is {asset!r}, which has no refs in {store.uri}; materialize it first, and give its"
            " whole name, such as model, <recipe>/merged_checkpoint or <recipe>/champion"
        )
        raise SettingsError("ronghe refs", [Fault("ASSET", problem)])
    if partition is not None and partition not in refs:
        known = sorted(key for key in refs if key is not None)
        shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        problem = f"is {partition!r}.{did_you_mean(partition, known)} {asset} has {shown or 'none'}"
        raise SettingsError("ronghe refs", [Fault("PARTITION", problem)])
    wanted = [partition] if partition is not None else sorted(refs, key=lambda key: key or "")
    rows = [
        (key or "–", entry.at, entry.kind, entry.digest[:SHORT], entry.run or "–", _said(entry))
        for key in wanted
        for entry in refs[key].history
    ]
    _table(console, asset, ("partition", "at", "kind", "digest", "run", "fields"), rows)


def _problems(
    store: ArtifactStore, kind: str, digest: str, bar: "Progress"
) -> tuple[list[str], int]:
    """What is wrong with one artifact, and its bytes."""
    from resources.errors import DamagedArtifactError

    try:
        artifact: Artifact = store.get(kind, digest)
    except DamagedArtifactError as error:
        return [str(error)], 0
    task = bar.add_task(f"{kind} {digest[:SHORT]}", total=artifact.nbytes)
    try:
        found = store.verify(
            artifact, lambda done, total: bar.update(task, completed=done, total=total)
        )
    finally:
        bar.remove_task(task)
    return found, artifact.nbytes


def _chosen(
    store: ArtifactStore, digests: Sequence[str], kind: str | None
) -> list[tuple[str, str]]:
    """(kind, digest) of every artifact asked for. Raises SettingsError for what is not there."""
    kinds = store.kinds()
    faults: list[Fault] = []
    if kind is not None and kind not in kinds:
        hint = did_you_mean(kind, kinds)
        there = ", ".join(kinds) or "nothing"
        faults.append(Fault("--kind", f"is {kind!r}.{hint} {store.uri} holds {there}"))
    known = [
        (each, digest)
        for each in kinds
        if kind is None or each == kind
        for digest in store.digests(each)
    ]
    for digest in digests:
        matches = [pair for pair in known if pair[1].startswith(digest)]
        if len(digest) < LEAST:
            problem = f"is {digest!r}; give at least {LEAST} characters of a digest"
            faults.append(Fault("DIGEST", problem))
        elif not matches:
            of = f" of kind {kind}" if kind else ""
            faults.append(Fault("DIGEST", f"is {digest!r}; {store.uri} has no such artifact{of}"))
    if faults:
        raise SettingsError("ronghe verify", faults)
    return [pair for pair in known if not digests or pair[1].startswith(tuple(digests))]


def _store() -> ArtifactStore:
    return ArtifactStore.open(load_settings().store)


def _said(entry: "RefEntry") -> str:
    return ", ".join(f"{name}={value}" for name, value in entry.fields.items()) or "–"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


def _period(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _console() -> PlainConsole:
    """A console; where the output is no terminal, wide enough for a digest and a message."""
    return PlainConsole(least_width=200)


def _table(
    console: "Console", title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    console.print(table)

"""`ronghe refresh` and `ronghe leaderboard`: what they print. The command line registers them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.work import names
from orchestration.commands.console import PlainConsole
from orchestration.commands.suite_power import print_smallest_differences
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from orchestration.refreshing.refresh import AssetCount, RefreshReport

WIDE = 158
"""Columns that the whole leaderboard needs."""
TELLING = 40
"""Characters of a message that say enough to be found again within another."""
BROKEN_PART = "broken/"
"""Begins the assets of broken parts, whose message names the part itself."""
MOST_PLACES = 4
"""Places that a failure names, of those where the same cause showed."""
ORDER = (
    "model", "model_scores", "task_vector", names.MERGE_PLAN, names.STEP,
    names.MERGED_CHECKPOINT, names.SCORES, "leaderboard", names.CHAMPION,
)  # fmt: skip
"""Kinds of assets as they follow from one another."""
COLUMNS = ("made", "up to date")
"""Columns that are shown even where they hold nothing but zeros."""


def refresh() -> None:
    """Observe the upstream models and run what any change touches, in this process."""
    from orchestration.refreshing.refresh import open_instance
    from orchestration.refreshing.refresh import refresh as run

    console, settings = _console(), load_settings()
    print_smallest_differences(console, settings)
    with open_instance(settings) as instance:
        report = run(instance, settings, console)
    _print_counts(console, report)
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for failure in by_cause(report.failures):
        text = f"failed: {failure}"
        console.print(text, style="red", soft_wrap=True)
    if report.failures:
        log = settings.dagster_home / "logs" / "refresh.log"
        note = f"What failed is tried again by the next refresh. The whole log: {log}"
        console.print(note, soft_wrap=True)
    _print_late(console, report)
    if report.failures or report.late:
        raise SystemExit(1)


def by_cause(failures: Sequence[str]) -> list[str]:
    """Say each cause once, with the first of the places where it showed.

    A failure is written `place: cause`, and no asset or partition has a colon before a blank.
    """
    places: dict[str, list[str]] = {}
    for failure in failures:
        place, _, cause = failure.partition(": ")
        if place.startswith(BROKEN_PART):
            place, cause = "", cause.removeprefix("check is_sound failed: ")
        of_cause = places.setdefault(cause or failure, [])
        if place and cause and place not in of_cause:
            of_cause.append(place)
    for cause in sorted(places, key=len, reverse=True):
        within = next((c for c in places if len(c) >= TELLING and c in cause and c != cause), None)
        if within is not None:  # it was met there and passed on
            places[within] += [each for each in places.pop(cause) if each not in places[within]]
    return [f"{_places(found)}{cause}" for cause, found in places.items()]


def _places(places: Sequence[str]) -> str:
    if not places:
        return ""
    more = len(places) - MOST_PLACES
    return f"{', '.join(places[:MOST_PLACES])}{f' and {more} more' if more > 0 else ''}: "


def leaderboard() -> None:
    """Print the leaderboard, where the artifacts are, and what to do next."""
    from orchestration.commands.catalog_store import open_store

    console, settings = _console(), load_settings()
    store = open_store(settings)
    artifact = store.resolve("leaderboard")
    if artifact is None:
        console.print(f"No leaderboard in {settings.store} yet; run `ronghe refresh` first.")
        raise SystemExit(1)
    best: str | None = None
    for file in sorted(name for name in artifact.files if name.endswith(".json")):
        rows = artifact.read_json(file)
        suite, wide = file.removesuffix(".json"), console.width >= WIDE
        console.print(_leaderboard_table(suite, rows, wide))
        for reason in dict.fromkeys(row["stale"] for row in rows if row.get("stale")):
            text = f"old rows, of the last sound look: {reason}"
            console.print(text, style="red", soft_wrap=True)
        merged = next((row for row in rows if row["experts"]), None)
        best = best or (merged and merged["digest"])
    note = "Points of test items ± standard error; coefficients were chosen on validation items."
    console.print(note if console.width >= WIDE else f"{note} A star: the paired tests decide.")
    checkpoint = store.find("checkpoint", best) if best else None
    if checkpoint is not None:
        where = (
            str(checkpoint.folder(checked=False))
            if store.uri.startswith("file:")
            else checkpoint.uri
        )
        console.print(f"\nbest merged checkpoint  {where}", soft_wrap=True)
    console.print(f"artifact store          {store.uri}", soft_wrap=True)
    _print_next_commands(console)


def _console() -> PlainConsole:
    """A console; where the output is no terminal, wide enough for the leaderboard."""
    return PlainConsole(least_width=WIDE)


def _print_counts(console: "Console", report: "RefreshReport") -> None:
    """Print how the partitions of each asset stand; columns of zeros alone are left out."""
    from rich.table import Table

    columns = {
        "made": lambda count: len(count.rerun - count.failed),
        "up to date": lambda count: count.up_to_date,
        "stale": lambda count: len(count.stale),
        "missing": lambda count: len(count.missing),
        "running elsewhere": lambda count: len(count.elsewhere),
        "failed": lambda count: len(count.failed),
    }
    rows = sorted(report.counts.items(), key=lambda item: _order(item[0]))
    shown = [c for c in columns if c in COLUMNS or any(columns[c](count) for _, count in rows)]
    table = Table(title="partitions", title_justify="left")
    for column in ("asset", *shown):
        table.add_column(column, justify="left" if column == "asset" else "right")
    for asset, count in rows:
        table.add_row(asset, *(str(columns[column](count)) for column in shown))
    console.print(table)
    for kind, title in ((names.MERGED_CHECKPOINT, "merged checkpoints"), (names.SCORES, "scores")):
        counts = _counts_of(report, kind)
        told = [(sum(map(columns[column], counts)), column) for column in shown]
        words = [f"{number} {column}" for number, column in told if number or column in COLUMNS]
        console.print(f"{title}: {', '.join(words)}")
    console.print(_sets_sentence(report))
    console.print(f"{report.rerun} partitions in {report.runs} runs, {report.seconds:.1f} s")


def _print_late(console: "Console", report: "RefreshReport") -> None:
    """Say that not everything is made, and by whom it is, where others work on it too."""
    lines: list[str] = []
    if report.daemon:
        lines.append(
            "A Dagster daemon is running on this DAGSTER_HOME (`make ui`, `dg dev` or"
            " `dagster-daemon`): it makes what changes by itself, also while this refresh ran."
        )
    if report.others:
        lines.append(f"{report.others} runs that are not this refresh's are not finished.")
    if report.late:
        lines.append(
            f"Not everything is made: {report.late} partitions are stale, missing or running"
            " elsewhere. Run `ronghe refresh` again"
            + (" when the daemon's runs have ended." if report.daemon or report.others else ".")
        )
    for line in lines:
        console.print(line, soft_wrap=True)


def _order(asset: str) -> tuple[int, str]:
    kind = names.kind_of(asset)
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), asset)


def _counts_of(report: "RefreshReport", kind: str) -> "list[AssetCount]":
    """What became of the assets of one kind."""
    return [count for asset, count in report.counts.items() if names.kind_of(asset) == kind]


def _sets_sentence(report: "RefreshReport") -> str:
    """Which expert sets were merged again."""
    grids = _counts_of(report, names.MERGED_CHECKPOINT)
    sets = sorted({str(key).split("|")[1] for count in grids for key in count.rerun})
    return f"expert sets merged: {', '.join(sets) or 'none'}"


def _leaderboard_table(suite: str, rows: Sequence[Mapping[str, Any]], wide: bool) -> Any:
    """One line a row where there is room; otherwise the expert set goes below the recipe."""
    from rich import box
    from rich.table import Table

    benchmarks = list(rows[0]["benchmarks"]) if rows else []
    rivals = {"vs_base": "vs base", "vs_best_expert": "vs best expert", "vs_average": "vs average"}
    shown = rivals if wide else {"vs_best_expert": "vs best expert"}
    table = Table(
        title=f"leaderboard: {suite}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("model", no_wrap=True)
    for name in (*benchmarks, "mean"):
        table.add_column(name.replace("_", " "), justify="right", min_width=9 if wide else 5)
    for name in shown.values():
        table.add_column(name, min_width=14 if wide else 6)
    for row in rows:
        scores = [_percent(row["benchmarks"][name], wide) for name in benchmarks]
        verdicts = [_verdict(row[key], wide) for key in shown]
        table.add_row(_label(row, wide), *scores, _percent(row["mean"], True), *verdicts)
    return table


def _label(row: Mapping[str, Any], wide: bool) -> "str | Text":
    """Single models and averages, which the others have to beat, stand out."""
    from rich.text import Text

    if not row["experts"]:
        old = ", old" if row.get("stale") else ""
        return Text.assemble((row["label"], "bold"), f" ({row['kind']}{old})")
    coefficient = "" if row["coefficient"] == "default" else row["coefficient"].replace("_", " ")
    parts = (f"{row['recipe']} {coefficient}".strip(), "+".join(row["experts"]))
    text = "  ".join(parts) if wide else f"{parts[0]}\n  {parts[1]}"
    text = f"{text} (old)" if row.get("stale") else text
    return Text(text, "bold") if row["kind"] == "average" else text


def _percent(score: Mapping[str, Any], with_error: bool) -> str:
    text, spread = f"{100 * score['value']:.1f}", score["stderr"]
    return text if spread is None or not with_error else f"{text} ±{100 * spread:.1f}"


def _verdict(comparison: Mapping[str, Any] | None, wide: bool) -> str:
    """The difference in points with its verdict; where there is no room a star for decided ones."""
    if comparison is None:
        return "–"
    difference, verdict = f"{100 * comparison['difference']:+.1f}", comparison["verdict"]
    if wide:
        return f"{difference} {verdict}"
    return difference if verdict == "undecided" else f"{difference} *"


def _print_next_commands(console: "Console") -> None:
    console.print("\nnext:")
    for command, what in (
        ("make ui", "lineage, partitions and plots on http://127.0.0.1:3000"),
        ("make demo-update", "retrain one expert, re-merge only what it touches"),
        ("ronghe plan CONFIG", "what merging a mergekit-style file would do"),
        ("ronghe merge CONFIG OUT", "merge one without Dagster"),
    ):
        console.print(f"  {command:<24} {what}", soft_wrap=True)

"""`ronghe refresh` and `ronghe leaderboard`: what they print. The command line registers them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.work import names
from merge_ops.errors import shown
from orchestration.commands.console import PlainConsole, say
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from orchestration.refreshing.refresh import AssetCount, RefreshReport

WIDE = 158
"""Columns that the whole leaderboard needs."""
ORDER = (
    "model", "model_scores", "task_vector", "merge_plan", names.MERGE_PLAN_SUBSET,
    names.STEP, names.MERGED_CHECKPOINT, names.SCORES, "leaderboard", names.CHAMPION,
)  # fmt: skip
"""Kinds of assets as they follow from one another."""


def refresh() -> None:
    """Observe the upstream models and run what any change touches, in this process."""
    from orchestration.refreshing.refresh import open_instance
    from orchestration.refreshing.refresh import refresh as run

    console, settings = _console(), load_settings()
    with open_instance(settings) as instance:
        report = run(instance, settings, console)
    _print_counts(console, report)
    for failure in dict.fromkeys(report.failures):
        text = f"failed: {failure}"
        console.print(text, style="red", soft_wrap=True)  # some have several lines
    if report.failures:
        log = settings.dagster_home / "logs" / "refresh.log"
        note = f"What failed is tried again by the next refresh. The whole log: {log}"
        say(console, note)
        raise SystemExit(1)


def leaderboard() -> None:
    """Print the leaderboard, where the artifacts are, and what to do next."""
    from resources.store import ArtifactStore

    console, settings = _console(), load_settings()
    store = ArtifactStore.open(settings.store)
    artifact = store.resolve("leaderboard")
    if artifact is None:
        console.print(f"No leaderboard in {settings.store} yet; run `ronghe refresh` first.")
        raise SystemExit(1)
    best: str | None = None
    for file in sorted(name for name in artifact.files if name.endswith(".json")):
        rows = artifact.read_json(file)
        suite, wide = file.removesuffix(".json"), console.width >= WIDE
        console.print(_leaderboard_table(suite, rows, wide))
        merged = next((row for row in rows if row["experts"]), None)
        best = best or (merged and merged["digest"])
    note = "Points of test items ± standard error; coefficients were chosen on validation items."
    console.print(note if console.width >= WIDE else f"{note} A star: the paired tests decide.")
    checkpoint = store.find("checkpoint", best) if best else None
    if checkpoint is not None:
        where = str(checkpoint.folder()) if store.uri.startswith("file:") else checkpoint.uri
        console.print()
        say(console, f"best merged checkpoint  {where}")
    say(console, f"artifact store          {store.uri}")
    _print_next_commands(console)


def _console() -> PlainConsole:
    """A console; where the output is no terminal, wide enough for the leaderboard."""
    return PlainConsole(least_width=WIDE)


def _print_counts(console: "Console", report: "RefreshReport") -> None:
    """How many partitions were re-run and how many were not touched, asset by asset."""
    from rich.table import Table

    failed = any(count.failed for count in report.counts.values())
    table = Table(title="partitions", title_justify="left")
    for column in ("asset", "re-run", "untouched", *(["failed"] if failed else [])):
        table.add_column(column, justify="left" if column == "asset" else "right")
    for asset, count in sorted(report.counts.items(), key=lambda item: _order(item[0])):
        cells = [shown(asset), str(len(count.rerun)), str(count.untouched)]
        table.add_row(*cells, *([str(len(count.failed))] if failed else []))
    console.print(table)
    for kind, title in ((names.MERGED_CHECKPOINT, "merged checkpoints"), (names.SCORES, "scores")):
        counts = _counts_of(report, kind)
        rerun = sum(len(count.rerun) for count in counts)
        console.print(f"{title}: {rerun} re-run, {sum(c.untouched for c in counts)} untouched")
    console.print(_sets_sentence(report), highlight=False)
    console.print(f"{report.rerun} partitions in {report.runs} runs, {report.seconds:.1f} s")


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
    compared = rivals if wide else {"vs_best_expert": "vs best expert"}
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
    for name in compared.values():
        table.add_column(name, min_width=14 if wide else 6)
    for row in rows:
        scores = [_percent(row["benchmarks"][name], wide) for name in benchmarks]
        verdicts = [_verdict(row[key], wide) for key in compared]
        table.add_row(_label(row, wide), *scores, _percent(row["mean"], True), *verdicts)
    return table


def _label(row: Mapping[str, Any], wide: bool) -> "str | Text":
    """Single models and averages, which the others have to beat, stand out."""
    from rich.text import Text

    if not row["experts"]:
        return Text.assemble((row["label"], "bold"), f" ({row['kind']})")
    coefficient = "" if row["coefficient"] == "default" else row["coefficient"].replace("_", " ")
    parts = (f"{row['recipe']} {coefficient}".strip(), "+".join(row["experts"]))
    text = "  ".join(parts) if wide else f"{parts[0]}\n  {parts[1]}"
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
        say(console, f"  {command:<24} {what}")

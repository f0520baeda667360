"""`ronghe refresh`: what it prints. The command line registers it."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from assets.work import names
from orchestration.commands.console import PlainConsole, print_json
from orchestration.commands.evidence.leaderboard_command import PLAIN_WIDTH
from orchestration.commands.evidence.leaderboard_command import leaderboard as leaderboard
from orchestration.commands.evidence.suite_power import print_smallest_differences
from orchestration.commands.store_tables import print_table, size_text
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from orchestration.catalogs import Catalog
    from orchestration.refreshing.forecast import Forecast
    from orchestration.refreshing.refresh import AssetCount, RefreshReport
    from orchestration.refreshing.standing import Standing

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
FORECAST = ("asset", "partitions", "written", "work")
COLUMNS = ("made", "up to date")
"""Columns that are shown even where they hold nothing but zeros."""


def refresh(as_json: bool = False) -> None:
    """Observe the upstream models and run what any change touches, in this process."""
    from orchestration.refreshing.instance import open_instance
    from orchestration.refreshing.refresh import refresh as run

    console, settings = _console(as_json), load_settings()
    gc.freeze()  # modules stay: looking through them for garbage takes 7 % of a refresh
    print_smallest_differences(console, settings)
    with open_instance(settings) as instance:
        report = run(instance, settings, console)
    log = settings.dagster_home / "logs" / "refresh.log"
    if as_json:
        print_json({**_document(report), "log": str(log)})
    else:
        _print_counts(console, report)
        _print_notes(console, report)
        if report.failures:
            note = f"What failed is tried again by the next refresh. The whole log: {log}"
            console.print(note, soft_wrap=True)
        _print_late(console, report)
    if report.failures or report.late:
        raise SystemExit(1)


def refresh_dry_run(as_json: bool = False) -> None:
    """Say what a refresh would make, how large it is and how long it takes; make nothing."""
    from orchestration.catalogs import load_catalog
    from orchestration.refreshing.forecast import forecast
    from orchestration.refreshing.instance import open_instance
    from orchestration.refreshing.refresh import look_ahead

    console, settings = _console(as_json), load_settings()
    with open_instance(settings) as instance:
        standing, report = look_ahead(instance, settings, console)
        catalog = load_catalog(settings.catalog)
        virtual = {
            names.merged_checkpoint(name)
            for name, each in catalog.recipes.items()
            if each.kept != "all"
        }
        found = forecast(instance, standing, virtual, _sizes(catalog, standing))
    if as_json:
        rows = [asdict(each) for each in _in_order(found)]
        print_json({"assets": rows, "notes": report.notes, "failures": by_cause(report.failures)})
    else:
        _print_forecast(console, found)
        _print_notes(console, report)
    if report.failures:
        raise SystemExit(1)


def _sizes(catalog: "Catalog", standing: "Standing") -> "dict[str, dict[str | None, int]]":
    """Bytes of models to be pulled, where they are here, and of the champions made of them."""
    import dagster as dg

    from orchestration.commands.starting.check_command import sizes_here

    if not standing.missing.get(dg.AssetKey("model")):
        return {}
    models = sizes_here(catalog)
    sizes: dict[str, dict[str | None, int]] = {"model": {**models}}
    for name, recipe in catalog.recipes.items():
        nbytes = models.get(catalog.base_of(recipe)) if recipe.kept == "champion" else 0
        if nbytes is not None:
            sizes[names.champion(name)] = {None: nbytes}
    return sizes


def _print_notes(console: "Console", report: "RefreshReport") -> None:
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for failure in by_cause(report.failures):
        console.print(f"failed: {failure}", style="red", soft_wrap=True)


def _document(report: "RefreshReport") -> dict[str, Any]:
    """What was done and what is left, as plain data."""
    counted = sorted(report.counts.items(), key=lambda item: _order(item[0]))
    return {
        "assets": {
            asset: {_key(name): number(count) for name, number in STANDING.items()}
            for asset, count in counted
        },
        "expert_sets_merged": _sets_merged(report),
        "partitions_made": report.rerun,
        "dagster_runs": report.runs,
        "seconds": report.seconds,
        "notes": report.notes,
        "failures": by_cause(report.failures),
        "late": report.late,
        "daemon": report.daemon,
        "other_runs": report.others,
    }


def _key(column: str) -> str:
    return column.replace(" ", "_")


def _in_order(found: "Sequence[Forecast]") -> "list[Forecast]":
    return sorted(found, key=lambda each: _order(each.asset))


def _print_forecast(console: "Console", found: "Sequence[Forecast]") -> None:
    rows = [
        (
            each.asset,
            str(each.partitions),
            "not known" if each.nbytes is None else size_text(each.nbytes),
            "not known" if each.seconds is None else _minutes(each.seconds),
        )
        for each in _in_order(found)
    ]
    if not rows:
        console.print("everything is up to date: a refresh would make nothing")
        return
    print_table(console, "a refresh would make, at most", FORECAST, rows)
    nbytes = sum(each.nbytes or 0 for each in found)
    seconds = sum(each.seconds or 0 for each in found)
    unknown = [each for each in found if each.seconds is None or each.nbytes is None]
    least = "at least " if unknown else ""
    told = f"{sum(each.partitions for each in found)} partitions, {least}{size_text(nbytes)}"
    console.print(f"{told} written, {least}{_minutes(seconds)} of work", soft_wrap=True)
    note = (
        "Sizes and times are those of earlier runs on this instance, sizes of what was never made"
        " those of the models' files; Dagster's own are not in it"
    )
    console.print(f"{note}. Leaderboard and champions follow.", soft_wrap=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


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


def _console(as_json: bool) -> PlainConsole:
    """A console; where the output is no terminal, as wide as the leaderboard's.

    Where the standard output is for JSON, it writes on the other one.
    """
    return PlainConsole(stderr=as_json, least_width=PLAIN_WIDTH)


STANDING: "Mapping[str, Callable[[AssetCount], int]]" = {
    "made": lambda count: len(count.rerun - count.failed),
    "up to date": lambda count: count.up_to_date,
    "stale": lambda count: len(count.stale),
    "missing": lambda count: len(count.missing),
    "running elsewhere": lambda count: len(count.elsewhere),
    "failed": lambda count: len(count.failed),
}
"""How many partitions of an asset stand how."""


def _print_counts(console: "Console", report: "RefreshReport") -> None:
    """Print how the partitions of each asset stand; columns of zeros alone are left out."""
    from rich.table import Table

    rows = sorted(report.counts.items(), key=lambda item: _order(item[0]))
    shown = [c for c in STANDING if c in COLUMNS or any(STANDING[c](count) for _, count in rows)]
    table = Table(title="partitions", title_justify="left")
    for column in ("asset", *shown):
        table.add_column(column, justify="left" if column == "asset" else "right")
    for asset, count in rows:
        table.add_row(asset, *(str(STANDING[column](count)) for column in shown))
    console.print(table)
    for kind, title in ((names.MERGED_CHECKPOINT, "merged checkpoints"), (names.SCORES, "scores")):
        counts = _counts_of(report, kind)
        told = [(sum(map(STANDING[column], counts)), column) for column in shown]
        words = [f"{number} {column}" for number, column in told if number or column in COLUMNS]
        console.print(f"{title}: {', '.join(words)}")
    console.print(f"expert sets merged: {', '.join(_sets_merged(report)) or 'none'}")
    console.print(f"{report.rerun} partitions in {report.runs} runs, {report.seconds:.1f} s")


def _print_late(console: "Console", report: "RefreshReport") -> None:
    """Say that not everything is made, and by whom it is, where others work on it too."""
    lines: list[str] = []
    if report.daemon:
        lines.append(
            "A Dagster daemon is running on this DAGSTER_HOME (`ronghe ui`, `dg dev` or"
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


def _sets_merged(report: "RefreshReport") -> list[str]:
    """Which expert sets were merged again."""
    grids = _counts_of(report, names.MERGED_CHECKPOINT)
    return sorted({str(key).split("|")[1] for count in grids for key in count.rerun})

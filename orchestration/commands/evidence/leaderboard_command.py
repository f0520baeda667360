"""`ronghe leaderboard`: every live model and candidate, side by side, and what to do next."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assets.work import names
from assets.work.ranking.imports import imported_beside, percent_text
from assets.work.ranking.published_evidence import read_evidence
from assets.work.records.champion_history import champion_state
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.catalogs.titles import read_titles
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.evidence.evidence_tables import print_evidence
from orchestration.commands.evidence.leaderboard_table import as_csv, as_json, sorted_rows, tables
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from resources.store import Artifact, ArtifactStore

PLAIN_WIDTH = 158
"""Columns where the output is no terminal: those of a large one."""


@dataclass(frozen=True)
class BoardOptions:
    """Options say which rows are shown, in which order and form. `top` None is all of them.

    With `evidence` what follows from all answers is shown too.
    """

    top: int | None = None
    sort: str = "mean"
    suite: str | None = None
    form: Literal["table", "csv", "json"] = "table"
    evidence: bool = False


def leaderboard(options: BoardOptions | None = None) -> None:
    """Print the leaderboard, where the artifacts are, and what to do next."""
    options, settings = options or BoardOptions(), load_settings()
    console = PlainConsole(least_width=PLAIN_WIDTH)
    store = open_store(settings, may_be_new=True)
    artifact = store.resolve("leaderboard")
    if artifact is None:
        note = f"No leaderboard in {settings.store} yet; run `ronghe refresh` first."
        PlainConsole(stderr=options.form != "table").print(note, soft_wrap=True)
        raise SystemExit(1)
    suites = _suites(artifact, options)
    if options.evidence and options.form != "table":
        _write_evidence(store, artifact, options)
        return
    shown = {suite: rows[: options.top] for suite, rows in suites.items()}
    if options.form != "table":
        sys.stdout.write(as_csv(shown) if options.form == "csv" else as_json(shown))
        return
    champions, evidence = _champions(store, suites), _evidence(store, artifact)
    for suite, rows in shown.items():
        for table in tables(f"leaderboard: {suite}", rows, console.width, champions):
            console.print(table, soft_wrap=True)
        hidden = len(suites[suite]) - len(rows)
        if hidden:
            say(console, f"{hidden} more rows are not shown.")
        for reason in dict.fromkeys(row["stale"] for row in rows if row.get("stale")):
            say(console, f"old rows, of the last sound look: {reason}", "red")
        print_evidence(console, suite, evidence.get(suite), options.evidence)
    note = "Points of test items (95 % interval); coefficients were chosen on validation items."
    say(console, f"{note} A verdict is of paired tests on the same items.")
    _print_titles(console, settings.catalog, shown)
    _print_imported(console, artifact)
    for recipe, problem in _stale(store, champions).items():
        say(console, marked("stale:", "yellow", f"the champion of {recipe}: {problem}"))
    _print_places(console, store, suites)
    _print_next_commands(console)


def _print_titles(
    console: PlainConsole, folder: Path, suites: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Print what recipes and models of the rows are called for people, where the catalog says."""
    titles = read_titles(folder)
    rows = [row for of_suite in suites.values() for row in of_suite]
    told = {row["recipe"]: titles.recipes.get(row["recipe"]) for row in rows if row["recipe"]}
    told |= {row["label"]: titles.models.get(row["label"]) for row in rows if not row["recipe"]}
    known = {name: title for name, title in told.items() if title}
    if known:
        say(console, "")
        for name, title in known.items():
            say(console, f"{name}: {title}")


def _evidence(store: "ArtifactStore", artifact: "Artifact") -> dict[str, Any]:
    """What follows from all answers, by suite, as it was published with the leaderboard."""
    from resources.errors import DamagedArtifactError

    try:
        return read_evidence(store, artifact.digest)
    except DamagedArtifactError as error:
        PlainConsole(stderr=True).print(f"the evidence beside the leaderboard: {error}")
        return {}


def _write_evidence(store: "ArtifactStore", artifact: "Artifact", options: BoardOptions) -> None:
    """Write the evidence of the suites that are asked for as JSON. Raises SettingsError for CSV."""
    if options.form == "csv":
        problem = "goes with --json or the table; it is no table of rows"
        raise SettingsError("ronghe leaderboard", [Fault("--evidence", problem)])
    found = _evidence(store, artifact)
    wanted = {k: each for k, each in found.items() if options.suite in (None, k)}
    print_json(wanted)


def _print_imported(console: PlainConsole, artifact: "Artifact") -> None:
    """Print scores from elsewhere, which stand on no table of ours."""
    rows = imported_beside(artifact)
    if not rows:
        return
    say(console, "")
    say(console, "imported scores (from elsewhere: never compared item by item, interval from n)")
    for row in rows:
        source = f"  {row['source']}" if row["source"] else ""
        say(
            console,
            f"  {row['benchmark']}  {row['model']}  {percent_text(row)}  n {row['n']}{source}",
        )


def _suites(artifact: "Artifact", options: BoardOptions) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each suite that is asked for, sorted."""
    files = sorted(name for name in artifact.files if name.endswith(".json"))
    there = [name.removesuffix(".json") for name in files]
    if options.suite is not None and options.suite not in there:
        near = did_you_mean(options.suite, there)
        problem = f"is {options.suite!r}.{near} The leaderboard has {', '.join(there) or 'none'}"
        raise SettingsError("ronghe leaderboard", [Fault("--suite", problem)])
    wanted = there if options.suite is None else [options.suite]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for suite in wanted:
        rows = artifact.read_json(f"{suite}.json")
        found[suite] = sorted_rows(rows, options.sort) if rows else rows
    return found


def _champions(
    store: "ArtifactStore", suites: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, str]:
    """The digests of the champions of all recipes that have rows, as far as they can be read."""
    from resources.errors import DamagedArtifactError

    recipes = {row["recipe"] for rows in suites.values() for row in rows if row["recipe"]}
    found: dict[str, str] = {}
    for recipe in sorted(recipes):
        try:
            ref = names.ref_of(store, names.champion(recipe))
        except DamagedArtifactError:
            continue
        if ref is not None:
            found[recipe] = ref.digest
    return found


def _stale(store: "ArtifactStore", champions: Mapping[str, str]) -> dict[str, str]:
    """Why champions are not what their recipes make today, by recipe."""
    from resources.errors import DamagedArtifactError

    found: dict[str, str] = {}
    for recipe in champions:
        try:
            state = champion_state(store, recipe)
        except DamagedArtifactError as error:
            found[recipe] = str(error)
        else:
            if state is not None and state.stale:
                found[recipe] = state.stale
    return found


def _print_places(
    console: PlainConsole,
    store: "ArtifactStore",
    suites: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Say where the best merged checkpoint of the first suite is, and the store."""
    rows = next(iter(suites.values()), [])
    best = next((row["digest"] for row in rows if row["experts"]), None)
    checkpoint = store.find("checkpoint", best) if best else None
    if checkpoint is not None:
        where = checkpoint.uri
        if checkpoint.virtual:
            where = f"virtual: `ronghe materialize {checkpoint.digest[:12]}` writes it"
        elif store.uri.startswith("file:"):
            where = str(checkpoint.folder(checked=False))
        say(console, "")
        say(console, f"best merged checkpoint  {where}")
    say(console, f"artifact store          {store.uri}")


def _print_next_commands(console: PlainConsole) -> None:
    say(console, "")
    say(console, "next:")
    for command, what in (
        ("make ui", "lineage, partitions and plots on http://127.0.0.1:3000"),
        ("make demo-update", "retrain one expert, re-merge only what it touches"),
        ("ronghe plan CONFIG", "what merging a mergekit-style file would do"),
        ("ronghe merge CONFIG OUT", "merge one without Dagster"),
    ):
        say(console, f"  {command:<24} {what}")

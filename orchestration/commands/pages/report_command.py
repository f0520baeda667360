"""`ronghe report`: champions, leaderboard and changes, as one file of HTML or as JSON."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.errors import Fault, OutputError, SettingsError, did_you_mean
from orchestration.commands.console import print_json, say
from orchestration.commands.pages.site_command import collect_site
from orchestration.commands.store_tables import make_console, size_text
from orchestration.options import one_of, read
from orchestration.settings import language as usual
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from assets.site.report import ReportOptions
    from assets.site.view import CatalogView

LANGUAGES = ("en", "zh")
_DAY = re.compile(r"\d{4}(-\d{2}(-\d{2}(T[\d:.+-]+)?)?)?")


@dataclass(frozen=True)
class Wanted:
    """A report as it was typed: where to, rows a suite, which suite, since when, the language."""

    html: Path | None
    top: int
    suite: str | None
    since: str
    language: str | None
    as_json: bool


def run_report(wanted: Wanted) -> None:
    """Write a report of the catalog to a file, or print it as JSON, or in a few lines.

    An earlier report is written over, another file is not. Raises SettingsError for options that
    cannot be, OutputError for a file that cannot be written.
    """
    from assets.site.report import ReportOptions, report_html, report_json

    language = wanted.language or usual()
    read("ronghe report", "--language", language, lambda text: one_of(text, LANGUAGES))
    if wanted.since and _DAY.fullmatch(wanted.since) is None:
        problem = f"is {wanted.since!r}; it must be a day, such as 2026-11-01, or the first of it"
        raise SettingsError("ronghe report", [Fault("--since", problem)])
    if wanted.html is not None:
        _check(wanted.html)
    view = collect_site(load_settings())
    suites = [suite.name for suite in view.suites]
    if wanted.suite is not None and wanted.suite not in suites:
        near = did_you_mean(wanted.suite, suites)
        problem = f"is {wanted.suite!r}.{near} The catalog has {', '.join(suites) or 'none'}"
        raise SettingsError("ronghe report", [Fault("--suite", problem)])
    options = ReportOptions(language, wanted.top, wanted.suite, wanted.since)
    written = _write(wanted.html, report_html(view, options)) if wanted.html is not None else 0
    if wanted.as_json:
        where = {"html": str(wanted.html), "bytes": written} if wanted.html is not None else {}
        print_json(report_json(view, options) | where)
    elif wanted.html is not None:
        told = f"report  {wanted.html.absolute()}  ({size_text(written)}, one file)"
        say(make_console(), told)
    else:
        _print(view, options)


def _check(path: Path) -> None:
    """Raise OutputError where a file is no report, or has no folder to be in."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        why = "is a folder" if path.is_dir() else "is in no folder that there is"
        raise OutputError(f"{path} {why}; give a file, such as report.html")
    if path.exists() and _MARK not in path.read_bytes()[:2000]:
        raise OutputError(f"{path} is there and is no report; give another name, or remove it")


_MARK = b"Content-Security-Policy"
"""What stands at the beginning of each report."""


def _write(path: Path, text: str) -> int:
    data = text.encode("utf-8", "replace")
    path.write_bytes(data)
    return len(data)


def _print(view: "CatalogView", options: "ReportOptions") -> None:
    """Print the champions and the last changes, and how to get all of it."""
    from assets.site.pages import moment
    from assets.site.report import changes, crowned

    console = make_console()
    say(console, "champions")
    for each in crowned(view, options):
        champion = each.recipe.champion
        if champion is None:
            say(console, f"  {each.recipe.name}  none yet")
            continue
        mean = f"{100 * each.row.mean[0]:.1f}" if each.row is not None else "–"
        point = f"{champion.experts} {champion.coefficient}".strip()
        say(console, f"  {each.recipe.name}  {mean}  {point}  {champion.digest[:12]}")
        if champion.stale:
            say(console, f"    stale: {champion.stale}", "yellow")
    say(console, "changes")
    for change in changes(view, options)[: options.top]:
        say(console, f"  {moment(change.at)}  {change.kind}  {change.subject}  {change.what}")
    say(console, "`ronghe report --html report.html` writes all of it as one page")

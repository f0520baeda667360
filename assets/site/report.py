"""The report: what a catalog has come to, as one page of HTML in one file, to be sent and printed.

It has no script and asks nobody for anything. Everything that strangers wrote is escaped, by the
same templates as the site. It speaks of the catalog's own times alone, so that the same catalog and
store give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assets.site.pages import environment, moment
from assets.site.reasons import in_chinese
from assets.site.texts import TEXTS
from assets.site.view import BoardRow, CatalogView, Change, LicenceView, RecipeView

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""No script and no request at all; styles stand in the file."""
TOP, MOST_CHANGES = 20, 40
WIDTH, LEFT, RIGHT, STEP = 720, 290, 60, 22
"""Pixels of a picture of scores: its width, the names', the values', and a row's height."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows: the language, rows a suite, one suite or all (None), changes since.

    `since` is the beginning of an ISO time, such as 2026-11-01; "" is all that there is.
    """

    language: str = "en"
    top: int = TOP
    suite: str | None = None
    since: str = ""


@dataclass(frozen=True)
class Crowned:
    """A recipe with its champion's row on the leaderboard, and the licence that holds."""

    recipe: RecipeView
    row: BoardRow | None
    licence: LicenceView | None


def report_html(view: CatalogView, options: ReportOptions) -> str:
    """Return a report as one HTML document."""
    words = TEXTS[options.language]
    template = environment().get_template("report.html")
    return template.render(
        view=view,
        options=options,
        policy=POLICY,
        w=words,
        own=in_chinese if options.language == "zh" else str,
        as_of=as_of(view),
        crowned=crowned(view, options),
        boards=[
            (
                suite,
                _rows(view, suite.name, options),
                drawn(view, suite.name, options),
            )
            for suite in view.suites
            if options.suite in (None, suite.name)
        ],
        imported=view.imported if options.suite is None else (),
        changes=changes(view, options)[:MOST_CHANGES],
        hidden=max(0, len(changes(view, options)) - MOST_CHANGES),
    )


def report_json(view: CatalogView, options: ReportOptions) -> dict[str, Any]:
    """Return what a report tells as plain data: shares between 0 and 1, times as ISO."""
    return {
        "catalog": view.name,
        "as_of": as_of(view),
        "champions": [_crowned_json(each) for each in crowned(view, options)],
        "suites": [
            {
                "suite": suite.name,
                "rows": [_row_json(each) for each in _rows(view, suite.name, options)],
            }
            for suite in view.suites
            if options.suite in (None, suite.name)
        ],
        "imported": list(view.imported) if options.suite is None else [],
        "changes": [
            {"at": each.at, "kind": each.kind, "subject": each.subject, "what": each.what,
             "because": each.because, "by": each.by}
            for each in changes(view, options)
        ],
        "problems": dict(view.problems),
    }  # fmt: skip


def as_of(view: CatalogView) -> str:
    """Return when the last change was, as people read it; "" where there was none."""
    return moment(max((each.at for each in view.changes), default=""))


def crowned(view: CatalogView, options: ReportOptions) -> list[Crowned]:
    """Return the recipes that are scored, each with its champion's row and licence."""
    licences = {each.subject: each for each in view.licences}
    rows = {
        (row.recipe, row.digest): row for board in view.boards.values() for row in board
    }  # fmt: skip
    found: list[Crowned] = []
    for recipe in view.recipes:
        if not recipe.suite or options.suite not in (None, recipe.suite):
            continue
        champion = recipe.champion
        row = rows.get((recipe.name, champion.digest)) if champion is not None else None
        subject = f"{recipe.name} {champion.experts}".strip() if champion is not None else ""
        found.append(Crowned(recipe, row, licences.get(subject)))
    return found


def changes(view: CatalogView, options: ReportOptions) -> list[Change]:
    """Return the changes since the time that is asked for; what has no time holds now."""
    return [each for each in view.changes if not each.at or each.at >= options.since]


def drawn(view: CatalogView, suite: str, options: ReportOptions) -> dict[str, Any]:
    """Return where everything of a picture of means with their intervals stands, in pixels."""
    rows = _rows(view, suite, options)
    low = min((row.mean[1] for row in rows), default=0.0)
    high = max((row.mean[2] for row in rows), default=1.0)
    low, high = int(10 * low) / 10, min(1.0, (int(10 * high) + 1) / 10)

    def x(share: float) -> float:
        return round(LEFT + (share - low) / max(high - low, 0.1) * (WIDTH - LEFT - RIGHT), 1)

    every = 0.1 if high - low < 0.45 else 0.2
    count = int((high - low) / every + 1e-9) + 1
    ticks = [low + every * place for place in range(count)]
    return {
        "width": WIDTH,
        "height": STEP * len(rows) + 30,
        "ticks": [(x(each), f"{100 * each:.0f}") for each in ticks],
        "rows": [
            {
                "y": STEP * place + 14,
                "x": x(row.mean[0]),
                "from": x(row.mean[1]),
                "to": x(row.mean[2]),
                "name": row.label if len(row.label) <= 40 else f"{row.label[:39]}…",
                "value": f"{100 * row.mean[0]:.1f}",
                "champion": row.champion,
            }
            for place, row in enumerate(rows)
        ],
    }


def _rows(view: CatalogView, suite: str, options: ReportOptions) -> tuple[BoardRow, ...]:
    return view.boards.get(suite, ())[: options.top]


def _crowned_json(each: Crowned) -> dict[str, Any]:
    champion = each.recipe.champion
    told: dict[str, Any] = {"recipe": each.recipe.name, "title": each.recipe.title}
    if champion is None:
        return {**told, "champion": None}
    return {
        **told,
        "champion": champion.digest,
        "experts": champion.experts,
        "coefficient": champion.coefficient,
        "since": champion.at,
        "because": champion.because,
        "by": champion.by,
        "stale": champion.stale,
        "cost": dict(champion.cost),
        "score": _row_json(each.row) if each.row is not None else None,
        "licence": each.licence.licence if each.licence is not None else None,
        "duties": list(each.licence.duties) if each.licence is not None else [],
        "conflicts": list(each.licence.conflicts) if each.licence is not None else [],
    }


def _row_json(row: BoardRow) -> dict[str, Any]:
    value, low, high = row.mean
    against: Mapping[str, Any] = {
        side: {"verdict": told[0], "difference": told[1], "low": told[2], "high": told[3]}
        for side, told in row.against.items()
    }
    return {
        "name": row.label, "kind": row.kind, "digest": row.digest, "mean": value, "low": low,
        "high": high, "against": against, "champion": row.champion, "stale": row.stale,
        "withdrawn": row.withdrawn,
    }  # fmt: skip

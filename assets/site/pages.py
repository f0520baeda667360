"""Renders a view as a static site: pages by jinja2 with autoescape, data, styles and scripts.

The pages ask nobody for anything: what they load lies beside them. A strict content security policy
is the second wall behind the escaping. Equal views give equal bytes.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from assets.site.data_files import data_files, packed
from assets.site.reasons import reasons
from assets.site.sections.changes import KINDS
from assets.site.texts import TEXTS
from assets.site.view import CatalogView, Change

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

INDEX = "index.html"
PAGES = ("index", "models", "recipes", "compare", "answers", "changes", "licences", "artifact")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'"
)
"""No script but the site's own files, none written into a page, and no request to others."""
_HERE = Path(__file__).parent


def render(view: CatalogView, out: Path) -> int:
    """Write the site of a view into a folder; return its bytes. What is there is overwritten."""
    written = 0
    for path, data in site_files(view):
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        written += len(data)
    return written


def site_files(view: CatalogView) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the site of a view, each with its path; one at a time is in memory."""
    for page in PAGES:
        template = environment().get_template(f"{page}.html")
        text = template.render(view=view, page=page, policy=POLICY, **_of_page(page, view))
        yield f"{page}.html", text.encode("utf-8", "replace")
    for path, data in static_files():
        yield path, data
    yield from data_files(view)
    name, data = packed("texts", {**TEXTS, "reasons": reasons()})
    yield name, data


@cache
def static_files() -> tuple[tuple[str, bytes], ...]:
    """Return styles and scripts, which are the same on every site of this release."""
    return tuple((each.name, each.read_bytes()) for each in sorted((_HERE / "static").iterdir()))


def _of_page(page: str, view: CatalogView) -> dict[str, Any]:
    if page == "changes":
        kinds = {each.kind for each in view.changes}
        return {"weeks": weeks(view.changes), "kinds": [each for each in KINDS if each in kinds]}
    return {}


def weeks(changes: tuple[Change, ...]) -> list[tuple[str, list[Change]]]:
    """Group changes by the Monday of their week, in their order; what has no time comes first."""
    from datetime import date, timedelta

    groups: dict[str, list[Change]] = {}
    timeless = [each for each in changes if not each.at]
    if timeless:
        groups[""] = timeless
    for each in changes:
        if each.at:
            day = date.fromisoformat(each.at[:10])
            monday = day - timedelta(days=day.weekday())
            groups.setdefault(monday.isoformat(), []).append(each)
    return list(groups.items())


@cache
def environment() -> "Environment":
    """Return the templates' environment: everything is escaped, nothing is undefined in silence."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["t"] = _text
    environment.globals["text"] = lambda key: TEXTS["en"][key]
    environment.globals["scripts"] = [n for n, _ in static_files() if n.endswith(".js")]
    environment.filters["place"] = place
    environment.filters["moment"] = moment
    return environment


def _text(key: str) -> "Markup":
    """A text in English, which the page exchanges for the reader's language."""
    from markupsafe import Markup

    return Markup('<span data-t="{}">{}</span>').format(key, TEXTS["en"][key])


def place(parts: tuple[str, ...]) -> str:
    """Return the address of a page of one thing: its parts stand behind the `#`."""
    return "artifact.html#" + "/".join(
        quote(str(part).encode("utf-8", "replace"), safe="") for part in parts
    )


def moment(at: str) -> str:
    """Return a moment as people read it: `2026-11-28 23:15`."""
    return at[:16].replace("T", " ")

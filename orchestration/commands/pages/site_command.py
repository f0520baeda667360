"""`ronghe site`: the catalog as static pages, in the store or in a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.errors import OutputError
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import print_json, say
from orchestration.commands.store_tables import make_console, size_text
from orchestration.settings import Settings, load_settings

if TYPE_CHECKING:
    from assets.site.facts import CatalogFacts
    from assets.site.publishing import PublishedSite
    from assets.site.sections.changes import Failure
    from assets.site.view import CatalogView

CATALOG_SITE = "catalog_site"
MARK = "index.html"
"""A folder that holds it is taken for an earlier site and written over."""


def run_site(out: Path | None, as_json: bool) -> None:
    """Render the site into the store where something changed; copy it to a folder if asked."""
    settings = named_settings(load_settings())
    if out is not None:
        _check(out)
    site = _render(settings)
    if out is not None:
        _copy(site, out)
    first = str(out.absolute() / MARK) if out is not None else site.index
    if as_json:
        told = {
            "index": first,
            "digest": site.artifact.digest,
            "bytes": site.artifact.nbytes,
            "files": len(site.artifact.files),
            "unchanged": site.memoized,
            "problems": dict(site.view.problems),
        }
        print_json(told)
        return
    console = make_console()
    say(console, f"catalog site  {first}")
    what = "nothing has changed since it was rendered" if site.memoized else "rendered"
    size = f"{size_text(site.artifact.nbytes)}, {len(site.artifact.files)} files"
    say(console, f"              {size}; {what}")
    for name, problem in site.view.problems:
        say(console, f"could not be read: {name}: {problem}", "yellow")


def renew_site(settings: Settings) -> str | None:
    """Render the site again where the store has one; return a warning where that cannot be done.

    For commands that change what it shows: what they did stands, whatever becomes of the site.
    """
    from merge_ops.errors import RongheError
    from resources.errors import ResourceError

    try:
        settings = named_settings(settings)
        if open_store(settings, may_be_new=True).ref(CATALOG_SITE) is not None:
            _render(settings)
    except (RongheError, ResourceError) as error:
        return f"the catalog site is as it was ({error}); `ronghe site` renders it"
    return None


def collect_site(settings: Settings) -> "CatalogView":
    """Collect what the site shows now; nothing is rendered or written."""
    from assets.site.collecting import collect_view
    from assets.site.publishing import earlier_site

    settings = named_settings(settings)
    store = open_store(settings, may_be_new=True)
    return collect_view(store, _facts(settings), _failures(settings), earlier_site(store))


def _render(settings: Settings) -> "PublishedSite":
    from assets.site.publishing import publish_site

    return publish_site(
        open_store(settings, may_be_new=True), _facts(settings), _failures(settings)
    )


def _facts(settings: Settings) -> "CatalogFacts":
    """What the catalog's folder says; the settings name the catalog."""
    from orchestration.catalogs import Partitions, load_catalog
    from orchestration.catalogs.site_facts import site_facts
    from orchestration.definitions import contest_of

    catalog = load_catalog(settings.catalog)
    return site_facts(Partitions(catalog), contest_of(catalog), str(settings.catalog_name))


def _check(out: Path) -> None:
    """Raise OutputError where a folder holds something else than a site."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is no folder; give one that is new, empty, or an earlier site")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise OutputError(
            f"{out} holds other files; give a folder that is new, empty, or an earlier site"
        )


def _copy(site: "PublishedSite", out: Path) -> None:
    """Write the site's files into a folder; what an earlier site had more of is removed."""
    there = {f"data/{path.name}" for path in (out / "data").glob("*.js")}
    for name in site.artifact.files:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(site.artifact.read_bytes(name))
    for name in there - site.artifact.files.keys():
        (out / name).unlink()


def _failures(settings: Settings) -> "list[Failure]":
    """What failed in the Dagster instance of these settings; nothing where there is none."""
    if not (settings.dagster_home / "dagster.yaml").is_file():
        return []
    from assets.step_failures import recent_failures
    from orchestration.refreshing.instance import open_instance

    with open_instance(settings) as instance:
        return recent_failures(instance)

"""What the catalog's suites can show, printed before a run."""

from typing import TYPE_CHECKING

from merge_ops.errors import RongheError
from orchestration.settings import Settings
from resources.errors import ResourceError

if TYPE_CHECKING:
    from orchestration.commands.console import PlainConsole


def print_smallest_differences(console: "PlainConsole", settings: Settings) -> None:
    """Print the smallest differences that each suite can show; faults are told by the run."""
    from assets.work.ranking.suite_power import smallest_differences
    from orchestration.catalogs import load_catalog
    from orchestration.commands.catalog_store import open_store
    from orchestration.definitions import contest_of

    try:
        contest = contest_of(load_catalog(settings.catalog))
        told = smallest_differences(open_store(settings, may_be_new=True), contest)
    except (RongheError, ResourceError):
        return
    for text in told.values():
        console.print(text, soft_wrap=True)

"""`ronghe routing`: what keeping several models and choosing between them would buy."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from assets.work.ranking.store_matrix import routing_of
from eval_ops.errors import PairingError
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import print_json, say
from orchestration.commands.evidence.champion_commands import contest_of
from orchestration.commands.store_tables import make_console, print_table
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from eval_ops.scores.answers import RoutingTable

COLUMNS = (
    "way", "test mean", "interval", "over best single", "interval of that", "verdict", "models",
    "calls", "detail",
)  # fmt: skip


def run_routing(suite: str | None, as_json: bool = False) -> None:
    """Print one table a suite, from stored scores alone, and whether to merge or to route."""
    settings, console = load_settings(), make_console()
    store, contest = open_store(settings), contest_of(settings)
    if suite is not None and suite not in contest.suites:
        near = did_you_mean(suite, contest.suites)
        problem = f"is {suite!r}.{near} Recipes are scored on {', '.join(contest.suites) or 'none'}"
        raise SettingsError("ronghe routing", [Fault("--suite", problem)])
    told: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for name in [suite] if suite is not None else list(contest.suites):
        try:
            table = routing_of(store, contest, name)
        except PairingError as error:
            if suite is not None:
                raise
            refused[name] = str(error)
            if not as_json:
                say(console, f"suite {name}: {error}")
            continue
        told.append({"suite": name, **asdict(table)})
        if as_json:
            continue
        print_table(console, f"what routing would buy: {name}", COLUMNS, rows_of(table))
        for line in notes_of(table):
            say(console, line)
    if as_json:
        print_json({"suites": told, "not_told": refused})
    if not told:
        raise SystemExit(1)


def rows_of(table: "RoutingTable") -> list[tuple[str, ...]]:
    """Return the table's rows as cells, in the order of COLUMNS."""
    return [
        (
            row.name,
            f"{100 * row.value:.1f}",
            f"{100 * row.low:.1f} to {100 * row.high:.1f}",
            f"{100 * row.difference:+.1f}",
            f"{100 * row.difference_low:+.1f} to {100 * row.difference_high:+.1f}",
            row.verdict,
            str(row.models),
            f"{row.calls:.2f}",
            row.detail,
        )
        for row in table.rows
    ]


def notes_of(table: "RoutingTable") -> list[str]:
    """Return what stands below the table, a line each."""
    gap, chance = 100 * table.gap, 100 * table.chance_gap
    return [
        table.advice,
        f"The oracle is {gap:+.1f} points from the best single model; models as good as these that"
        f" answer independently would be {chance:+.1f} from it. What was chosen or fitted is on"
        " validation items, the numbers are of test items.",
        *(f"left out: {name}: {why}" for name, why in table.left_out.items()),
    ]

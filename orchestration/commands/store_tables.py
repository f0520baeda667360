"""Tables, bars and words that the commands on the store share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merge_ops.errors import shown
from orchestration.commands.console import PlainConsole

if TYPE_CHECKING:
    from rich.console import Console

SHORT = 12  # characters of a digest that a table shows
LEAST = 6  # characters that name a digest


def size_text(nbytes: int) -> str:
    """Write a size in MB or GB."""
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


def period_text(seconds: float) -> str:
    """Write a period in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def make_console() -> PlainConsole:
    """Make a console; where the output is no terminal, wide enough for a digest and a message."""
    return PlainConsole(least_width=200)


def make_list_console() -> PlainConsole:
    """Make a console whose tables fit 80 columns where the output is no terminal."""
    return PlainConsole(least_width=80)


def print_table(
    console: "Console", title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print rows as a table whose cells fold."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    console.print(table)

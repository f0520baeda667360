"""A plan for the terminal: its parameters as a table, and strangers' names made harmless."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from merge_ops.plans import Plan


def shown(text: object) -> Text:
    """Return a name as plain text for the terminal."""
    escaped = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text)
    )
    return Text(escaped)


def parameter_table(plan: Plan) -> Table:
    """Return the table of a plan's parameters, for the first coefficient."""
    table = Table()
    table.add_column("parameters", overflow="fold")
    table.add_column("tensors", justify="right")
    table.add_column("for example", overflow="fold")
    for row in plan.parameter_rows:
        cells = (row.words, str(len(row.names)), row.names[0])
        table.add_row(*map(shown, cells))
    return table

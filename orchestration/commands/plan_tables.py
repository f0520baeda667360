"""A plan for the terminal: its parameters as a table."""

from __future__ import annotations

from rich.table import Table

from merge_ops.errors import shown
from merge_ops.plans import Plan


def parameter_table(plan: Plan) -> Table:
    """Return the table of a plan's parameters, for the first coefficient."""
    table = Table()
    table.add_column("parameters", overflow="fold")
    table.add_column("tensors", justify="right")
    table.add_column("for example", overflow="fold")
    for row in plan.parameter_rows:
        table.add_row(shown(row.words), str(len(row.names)), shown(row.names[0]))
    return table

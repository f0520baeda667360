"""A plan for the terminal: its parameters as a table."""

from __future__ import annotations

import itertools

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


MOST_STEPS = 12  # of a window that are named each; --json has all


def window_lines(plan: Plan) -> list[str]:
    """Return a line for each coefficient's window: its steps and their weights; none without."""
    window = plan.recipe.window
    if window is None:
        return []
    lines: list[str] = []
    for point in plan.coefficients:
        rows = window.rows(point.values)
        shown_rows = rows if len(rows) <= MOST_STEPS else [*rows[:2], *rows[-2:]]
        words = [f"step {step} × {weight:.6g}" for step, _, weight in shown_rows]
        if len(rows) > MOST_STEPS:
            words.insert(2, f"… ({len(rows)} steps)")
        gaps = {after[0] - row[0] for row, after in itertools.pairwise(rows)}
        spaced = " (unevenly spaced)" if len(gaps) > 1 else ""
        lines.append(f"window {point.id}{spaced}: {', '.join(words)}")
    return lines

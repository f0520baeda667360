"""Which moe_experts a router gives each prompt to, as a picture of prompts by moe_experts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval_ops.plots.figures import label_text, new_figure, png

MOST_PROMPTS, MOST_EXPERTS = 60, 64
"""Rows and columns that are drawn; what is beyond stands in the table."""
MOST_NUMBERED = 12
"""Columns that are wide enough for a number in each cell."""


def routing_plot(
    prompts: Sequence[str], experts: Sequence[str], shares: Sequence[Sequence[float]]
) -> bytes:
    """Draw the share of each moe_expert in each prompt, [prompts, experts], from 0 to 1."""
    return png(routing_figure(prompts, experts, shares))


def routing_figure(
    prompts: Sequence[str], experts: Sequence[str], shares: Sequence[Sequence[float]]
) -> Any:
    """Return the matplotlib figure that `routing_plot` draws."""
    drawn = np.asarray(shares, dtype=np.float64)[:MOST_PROMPTS, :MOST_EXPERTS]
    rows, columns = drawn.shape
    width = 4.2 + max(2.4, (0.62 if columns <= MOST_NUMBERED else 0.24) * columns)
    figure, axes = new_figure(width, 1.6 + 0.26 * rows)
    image = axes.imshow(drawn, "Blues", vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    axes.set_xticks(
        range(columns),
        [label_text(name, 22) for name in experts[:columns]],
        rotation=35,
        ha="right",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.set_yticks(range(rows), [label_text(one_line(each), 44) for each in prompts[:rows]])
    axes.tick_params(axis="y", labelsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    left_out = len(prompts) - rows + len(experts) - columns
    more = " (part of them)" if left_out else ""
    axes.set_title(f"Share of each moe_expert{more}, mean over layers", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)
    if columns <= MOST_NUMBERED:
        for (row, column), value in np.ndenumerate(drawn):
            ink = "white" if value > 0.6 else "black"
            text = f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    return figure


def one_line(text: str) -> str:
    """Return a text without line breaks and runs of blanks."""
    return " ".join(text.split())

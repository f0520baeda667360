"""Retention as a table of colours, and trade-offs as clouds of points with their front."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval_ops.plots.figures import BLUE, GREY, RED, label_text, new_figure, png
from eval_ops.scores.matrices.retention import Retention, front

MOST_MERGES, MOST_EXPERTS = 24, 12
"""Rows and columns of one picture; the first ones are drawn."""
ABSENT = "#e8e8e8"
"""Behind cells without a value: the middle of the colours is nearly white."""
MOST_NAMED = 8
"""Points of a front that have room for their names."""


def retention_plot(found: Sequence[Retention]) -> bytes:
    """Draw what merges (rows) keep of experts (columns), in percent of their gains."""
    return png(retention_figure(found))


def retention_figure(found: Sequence[Retention]) -> Any:
    """Return the matplotlib figure that `retention_plot` draws."""
    merges = list(dict.fromkeys(each.merge for each in found))[:MOST_MERGES]
    experts = list(dict.fromkeys(each.expert for each in found))[:MOST_EXPERTS]
    shares = {(each.merge, each.expert): each for each in found}
    cells = np.full((len(merges), len(experts)), np.nan)
    for row, merge in enumerate(merges):
        for column, expert in enumerate(experts):
            each = shares.get((merge, expert))
            if each is not None and each.share is not None:
                cells[row, column] = 100 * each.share
    figure, axes = new_figure(4.8 + 1.15 * len(experts), 1.5 + 0.3 * len(merges))
    axes.set_facecolor(ABSENT)  # which shows where there is no value
    image = axes.imshow(cells, "RdYlBu", vmin=0, vmax=110, aspect="auto", interpolation="nearest")
    for row, merge in enumerate(merges):
        for column, expert in enumerate(experts):
            each = shares.get((merge, expert))
            if each is None:
                continue
            text = _cell(each)
            dark = np.isfinite(cells[row, column]) and not 20 < cells[row, column] < 92
            ink = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(experts)), [label_text(name, 18) for name in experts], fontsize=8)
    axes.set_yticks(range(len(merges)), [label_text(name, 60) for name in merges], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    title = "Gain over the base that is kept, percent (95 % interval; grey: not in the merge)"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.colorbar(image, ax=axes, shrink=0.9).ax.tick_params(labelsize=7)
    return figure


def _cell(each: Retention) -> str:
    if each.share is None or each.low is None or each.high is None:
        return "no gain"
    return f"{100 * each.share:.0f} ({100 * each.low:.0f} to {100 * each.high:.0f})"


def front_plot(
    title: str,
    axes_names: tuple[str, str],
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    smaller_is_better: bool = False,
) -> bytes:
    """Draw models by two goals, in percent, and the front that nothing beats.

    With `smaller_is_better` the first goal is one to keep small, such as the answers' length, and
    is drawn as it is.
    """
    return png(front_figure(title, axes_names, names, points, smaller_is_better))


def front_figure(
    title: str,
    axes_names: tuple[str, str],
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    smaller_is_better: bool = False,
) -> Any:
    """Return the matplotlib figure that `front_plot` draws."""
    goals = np.array(points, dtype=np.float64).reshape(-1, 2)
    on_front = front(goals, [0] if smaller_is_better else [])
    shown = goals * ([1.0, 100.0] if smaller_is_better else [100.0, 100.0])
    figure, axes = new_figure(6.6, 4.6)
    axes.scatter(*shown[~on_front].T, color=GREY, s=18, label="others", alpha=0.7)
    order = np.flatnonzero(on_front)[np.argsort(shown[on_front][:, 0], kind="stable")]
    reached = "post" if smaller_is_better else "pre"  # what the front reaches between its points
    axes.step(*shown[order].T, where=reached, color=RED, linewidth=1, alpha=0.6)
    axes.scatter(*shown[order].T, color=BLUE, s=34, label="nothing is better in both", zorder=3)
    for number, place in enumerate(order[:MOST_NAMED], start=1):
        offset = (5, 5)
        axes.annotate(str(number), shown[place], offset, textcoords="offset points", fontsize=8)
    first: list[int] = order[:MOST_NAMED].tolist()
    told = [f"{n}: {label_text(names[at], 70)}" for n, at in enumerate(first, start=1)]
    more = len(order) - MOST_NAMED
    told += [f"and {more} more on the front"] if more > 0 else []
    axes.set_xlabel(label_text(axes_names[0], 60), fontsize=9)
    axes.set_ylabel(label_text(axes_names[1], 60), fontsize=9)
    axes.set_title(label_text(title, 70), fontsize=10, loc="left")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.supxlabel("\n".join(told), fontsize=7, x=0.02, ha="left")
    return figure

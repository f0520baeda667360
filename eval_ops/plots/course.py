"""The course of a training run: merged against raw scores over its steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval_ops.plots.figures import (
    GREY,
    LINE_COLOURS,
    MARKERS,
    error_bars,
    label_text,
    new_figure,
    png,
)

if TYPE_CHECKING:
    from eval_ops.scores import Mean

    Points = Sequence[tuple[int, Mean]]

MOST_LINES = len(LINE_COLOURS) - 1


def course_plot(title: str, raw: "Points", merged: "Mapping[str, Points]") -> bytes:
    """Draw the means of raw steps and of windows, each at its newest step, with 95 % intervals.

    `merged` has a line for each window, by what it is called; the first MOST_LINES are drawn.
    """
    return png(course_figure(title, raw, merged))


def course_figure(title: str, raw: "Points", merged: "Mapping[str, Points]") -> Any:
    """Return the matplotlib figure that `course_plot` draws."""
    figure, axes = new_figure(6.4, 3.6)
    _draw(axes, raw, "the steps themselves", GREY, "x", ":")
    lines = list(merged.items())
    for number, (name, points) in enumerate(lines[:MOST_LINES]):
        marker = MARKERS[number % len(MARKERS)]
        _draw(axes, points, label_text(name, 40), LINE_COLOURS[number], marker, "-")
    hidden = len(lines) - MOST_LINES
    axes.set_xlabel("newest step" + (f" ({hidden} more windows not shown)" if hidden > 0 else ""))
    axes.set_ylabel("mean accuracy, percent", fontsize=9)
    axes.set_title(label_text(title, 60), fontsize=10, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _draw(axes: Any, points: "Points", label: str, colour: str, marker: str, line: str) -> None:
    rising = sorted(points, key=lambda each: each[0])
    means = [mean for _, mean in rising]
    axes.errorbar(
        [step for step, _ in rising],
        [100 * mean.value for mean in means],
        yerr=error_bars(means) if means else None,
        color=colour,
        marker=marker,
        linestyle=line,
        markersize=5,
        linewidth=1.4,
        elinewidth=1,
        capsize=2,
        label=label,
    )

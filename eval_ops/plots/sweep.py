"""A sweep as a picture: validation and test means over its coefficients."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from eval_ops.plots.figures import BLUE, GREEN, ORANGE, error_bars, label_text, new_figure, png
from eval_ops.scores import Mean
from eval_ops.scores.leaderboard import CoefficientPoint

PARAMETER = re.compile(r"([A-Za-z]\w*?)=(.+?)(?:_(?=[A-Za-z]\w*=)|$)")
"""One `name=value` of a coefficient id."""


def coefficient_plot(
    title: str, points: Sequence[CoefficientPoint], chosen: str | None = None
) -> bytes:
    """Draw validation and test means with 95 % intervals over a sweep's coefficients.

    `chosen` is the coefficient id to mark. Parameters that never vary move from ticks to the axis.
    """
    return png(coefficient_figure(title, points, chosen))


def coefficient_figure(
    title: str, points: Sequence[CoefficientPoint], chosen: str | None = None
) -> Any:
    """Return the matplotlib figure that `coefficient_plot` draws."""
    labels, name = _tick_labels([point.coefficient for point in points])
    figure, axes = new_figure(max(4.6, 2.2 + 0.62 * len(points)), 3.4)
    _draw_means(axes, [point.validation for point in points], VALIDATION)
    _draw_means(axes, [point.test for point in points], TEST)
    for place, point in enumerate(points):
        if point.coefficient == chosen:
            looks = {"color": GREEN, "linewidth": 9, "alpha": 0.25, "solid_capstyle": "butt"}
            axes.axvline(place, zorder=0, label="chosen", **looks)
    axes.set_xticks(range(len(points)), labels, fontsize=8)
    if max((len(label) for label in labels), default=0) > UPRIGHT:
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, max(1, len(points)) - 0.5)
    axes.set_xlabel(name, fontsize=9)
    axes.set_ylabel("mean accuracy, percent", fontsize=9)
    axes.set_title(label_text(title, 60), fontsize=10, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


class Series(NamedTuple):
    """How one line of means looks; `shift` moves it sideways, so that error bars stay apart."""

    label: str
    colour: str
    marker: str
    shift: float


VALIDATION = Series("validation (chooses)", BLUE, "o", -0.05)
TEST = Series("test (reports)", ORANGE, "s", 0.05)
UPRIGHT = 6
"""Labels of more characters than this are slanted, since they would run into each other."""


def _draw_means(axes: Any, means: Sequence[Mean], series: Series) -> None:
    places = [place + series.shift for place in range(len(means))]
    lows, highs = ([100 * getattr(mean, end) for mean in means] for end in ("low", "high"))
    axes.fill_between(places, lows, highs, color=series.colour, alpha=0.12, linewidth=0)
    axes.errorbar(
        [place + series.shift for place in range(len(means))],
        [100 * mean.value for mean in means],
        yerr=error_bars(means),
        color=series.colour,
        marker=series.marker,
        markersize=5,
        linewidth=1.4,
        elinewidth=1,
        capsize=2,
        label=series.label,
    )


def _tick_labels(coefficients: Sequence[str]) -> tuple[list[str], str]:
    """Return tick labels and the axis name; parameters that never vary stand on the axis."""
    points = [dict(PARAMETER.findall(coefficient)) for coefficient in coefficients]
    names = list(points[0]) if points else []
    if not names or any(list(point) != names for point in points):
        return [label_text(coefficient, 28) for coefficient in coefficients], "coefficient"
    varying = [name for name in names if len({point[name] for point in points}) > 1] or names[:1]
    fixed = ", ".join(f"{name}={points[0][name]}" for name in names if name not in varying)
    axis = ", ".join(varying) + (f" ({fixed})" if fixed else "")
    labels = [", ".join(point[name] for name in varying) for point in points]
    return [label_text(label, 20) for label in labels], label_text(axis, 60)

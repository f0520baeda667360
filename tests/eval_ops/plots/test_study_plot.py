"""The picture of a study: what stands in it."""

import pytest

from eval_ops.plots import study_plot
from eval_ops.plots.study import study_figure
from eval_ops.search import Study, Trial

POINTS = [
    {"lambda": 0.5 + n / 10, "weight[草药]": 1 - n / 10, "select": "ab"[n % 2]} for n in range(8)
]


def study(objectives: tuple[str, ...] = ("mean",)) -> Study:
    trials = [
        Trial(n, point, None if n == 3 else (0.5 + n / 20, 0.9 - n / 20)[: len(objectives)])
        for n, point in enumerate(POINTS)
    ]
    return Study("tpe", 0, objectives, tuple(trials), "trials")


def test_trials_the_best_so_far_and_each_dimension() -> None:
    figure = study_figure("ties herbs+idioms", study())
    first, *others = figure.axes
    assert [panel.get_xlabel() for panel in others] == ["lambda", "weight[草药]", "select"]
    lines = {line.get_label(): line for line in first.get_lines()}
    assert len(lines["trial"].get_xdata()) == 7
    assert list(lines["failed"].get_xdata()) == [3]
    assert lines["best so far"].get_ydata()[-1] == pytest.approx(85.0)
    assert study_plot("ties", study())[:4] == b"\x89PNG"


def test_two_objectives_show_their_front() -> None:
    first = study_figure("ties", study(("herbs", "idioms"))).axes[0]
    assert (first.get_xlabel(), first.get_ylabel()) == ("herbs, percent", "idioms, percent")
    lines = {line.get_label(): line for line in first.get_lines()}
    assert len(lines["front"].get_xdata()) == 7  # what one gains the other loses: all are on it


def test_many_dimensions_are_cut_to_the_strongest() -> None:
    trials = tuple(Trial(n, {f"p{d}": n % (d + 2) for d in range(9)}, (n / 10,)) for n in range(10))
    figure = study_figure("", Study("random", 0, ("mean",), trials))
    assert len(figure.axes) == 7


def test_a_study_of_failures_alone_is_drawn() -> None:
    assert study_plot("", Study("random", 0, ("mean",), (Trial(0, {"t": 1.0}),)))[:4] == b"\x89PNG"

"""A study as a picture: what each trial scored, the best so far, and each parameter by itself."""

from typing import Any

from eval_ops.plots.figures import BLUE, GREEN, GREY, ORANGE, label_text, new_figure, png
from eval_ops.search import Study, Trial

MOST_PANELS = 6
"""Dimensions that are drawn, those whose values go with the objective most."""


def study_plot(title: str, study: Study) -> bytes:
    """Draw a study: trials in their order, and for each dimension the value against the objective.

    With two objectives the first panel shows these against each other, with the front.
    """
    return png(study_figure(title, study))


def study_figure(title: str, study: Study) -> Any:
    """Return the matplotlib figure that `study_plot` draws."""
    tried = [trial for trial in study.trials if trial.values is not None]
    dimensions = _chosen(tried)
    panels = 1 + len(dimensions)
    figure, axes = new_figure(3.4 + 2.3 * len(dimensions), 3.0, panels)
    first, *others = axes if panels > 1 else [axes]
    if len(study.objectives) == 2:
        _draw_front(first, study, tried)
    else:
        _draw_order(first, study, tried)
    first.set_title(label_text(title, max(40, 24 * panels)), fontsize=10, loc="left")
    best = study.winner
    for panel, name in zip(others, dimensions, strict=True):
        _draw_dimension(panel, name, tried, best)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _mean(trial: Trial) -> float:
    values = trial.values or ()
    return 100 * sum(values) / max(1, len(values))


def _draw_order(axes: Any, study: Study, tried: list[Trial]) -> None:
    numbers = [trial.number for trial in tried]
    best: list[float] = []
    for trial in tried:
        best.append(max(_mean(trial), best[-1] if best else 0.0))
    axes.plot(
        numbers, [_mean(trial) for trial in tried], "o", color=BLUE, markersize=4, label="trial"
    )
    axes.step(numbers, best, where="post", color=GREEN, linewidth=1.4, label="best so far")
    if study.centre_wins and study.centre is not None:
        axes.plot([study.centre.number], [_mean(study.centre)], "*", color=ORANGE, markersize=11)
    failed = [trial.number for trial in study.trials if trial.values is None]
    if failed:
        low = min((_mean(trial) for trial in tried), default=0.0)
        axes.plot(failed, [low] * len(failed), "x", color=GREY, markersize=5, label="failed")
    axes.set_xlabel("trial", fontsize=9)
    axes.set_ylabel("validation, percent", fontsize=9)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)


def _draw_front(axes: Any, study: Study, tried: list[Trial]) -> None:
    pairs = [trial.values for trial in tried if trial.values is not None]
    axes.plot(
        [100 * a for a, _ in pairs], [100 * b for _, b in pairs], "o", color=BLUE, markersize=4,
        label="trial",
    )  # fmt: skip
    front = sorted(trial.values for trial in study.front if trial.values is not None)
    axes.step(
        [100 * a for a, _ in front], [100 * b for _, b in front], where="pre", marker="s",
        markersize=4, color=ORANGE, linewidth=1.4, label="front",
    )  # fmt: skip
    names = [label_text(name, 24) for name in study.objectives]
    axes.set_xlabel(f"{names[0]}, percent", fontsize=9)
    axes.set_ylabel(f"{names[1]}, percent", fontsize=9)


def _draw_dimension(axes: Any, name: str, tried: list[Trial], best: Trial | None) -> None:
    values = [trial.point[name] for trial in tried]
    if any(isinstance(value, str) for value in values):
        values = [str(value) for value in values]
    axes.plot(values, [_mean(trial) for trial in tried], "o", color=BLUE, markersize=4)
    if best is not None:
        place = best.point[name]
        mark = str(place) if values and isinstance(values[0], str) else place
        axes.plot([mark], [_mean(best)], "*", color=ORANGE, markersize=11, label=_label(axes))
    axes.set_xlabel(label_text(name, 28), fontsize=9)
    axes.tick_params(labelleft=False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)


def _label(axes: Any) -> str | None:
    """The legend names the winner once, in the first of the panels."""
    drawn = [line for panel in axes.figure.axes for line in panel.get_lines()]
    return None if any(line.get_marker() == "*" for line in drawn) else "winner"


def _chosen(tried: list[Trial]) -> list[str]:
    """The dimensions to draw: of many, those whose numbers correlate most with the objective."""
    names = list(tried[0].point) if tried else []
    if len(names) <= MOST_PANELS:
        return names
    strength = {name: _correlation(name, tried) for name in names}
    chosen = sorted(names, key=lambda name: -strength[name])[:MOST_PANELS]
    return [name for name in names if name in chosen]


def _correlation(name: str, tried: list[Trial]) -> float:
    import numpy as np

    values = [trial.point[name] for trial in tried]
    if any(isinstance(value, str) for value in values):
        return 0.0
    pair = np.array([[float(value) for value in values], [_mean(trial) for trial in tried]])
    if pair.shape[1] < 2 or (pair.std(axis=1) == 0).any():
        return 0.0
    return abs(float(np.corrcoef(pair)[0, 1]))

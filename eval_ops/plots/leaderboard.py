"""The leaderboard as a picture: a bar a checkpoint, best on top."""

from collections.abc import Sequence
from typing import Any

from eval_ops.plots.figures import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY,
    error_bars,
    label_text,
    new_figure,
    png,
)
from eval_ops.scores.leaderboard import Kind, Row

KIND_COLOURS: dict[Kind, str] = {
    "base": GREY,
    "expert": ORANGE,
    "average": SKY,
    "candidate": BLUE,
}

MOST_ANCHORS = 12
"""Base models and experts that stay in a picture of any length."""


def leaderboard_plot(table: Sequence[Row], limit: int = 24) -> bytes:
    """Draw test means with 95 % intervals as horizontal bars, best on top.

    Of a longer table the first rows are kept, the best base model, experts and average among them.
    """
    return png(leaderboard_figure(table, limit))


def leaderboard_figure(table: Sequence[Row], limit: int = 24) -> Any:
    """Return the matplotlib figure that `leaderboard_plot` draws."""
    shown = _shorten(table, limit)
    height = 1.3 + 0.27 * max(1, len(shown))
    figure, axes = new_figure(9.2, height)
    places = range(len(shown))
    axes.barh(
        places,
        [100 * row.mean.value for row in shown],
        xerr=error_bars([row.mean for row in shown]),
        color=[KIND_COLOURS[row.kind] for row in shown],
        height=0.72,
        error_kw={"ecolor": BLACK, "elinewidth": 1, "capsize": 2},
    )
    for place, row in zip(places, shown, strict=True):
        axes.text(
            100 * row.mean.high + 1, place, f"{100 * row.mean.value:.1f}", va="center", fontsize=8
        )
    axes.set_yticks(places, [label_text(row.label, 60) for row in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("mean test accuracy, percent (bars: 95 % interval)", fontsize=9)
    present = {id(row) for row in shown}
    hidden = [row.kind for row in table if id(row) not in present]
    what = "rows" if {"base", "expert"} & set(hidden) else "merged checkpoints"
    axes.set_title(
        "Leaderboard" + (f" ({len(hidden)} more {what} not shown)" if hidden else ""),
        fontsize=10,
        loc="left",
    )
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    _kind_legend(figure, [row.kind for row in shown])
    return figure


def _shorten(table: Sequence[Row], limit: int) -> list[Row]:
    """Return `limit` rows in their order; more only where the anchors and one other are more."""
    if len(table) <= limit:
        return list(table)
    anchors = [row for row in table if row.kind in ("base", "expert")]
    if len(anchors) > MOST_ANCHORS:
        bases = [row for row in anchors if row.kind == "base"][: MOST_ANCHORS // 2]
        experts = [row for row in anchors if row.kind == "expert"]
        anchors = [*bases, *experts[: MOST_ANCHORS - len(bases)]]
    anchors += [row for row in table if row.kind == "average"][:1]
    chosen = {id(row) for row in anchors}
    others = [row for row in table if id(row) not in chosen]
    kept = chosen | {id(row) for row in others[: max(1, limit - len(anchors))]}
    return [row for row in table if id(row) in kept]


def _kind_legend(figure: Any, kinds: Sequence[Kind]) -> None:
    from matplotlib.patches import Patch

    names = {"base": "base model", "expert": "single expert", "average": "plain average"}
    patches = [
        Patch(color=colour, label=names.get(kind, "merged, coefficient chosen on validation"))
        for kind, colour in KIND_COLOURS.items()
        if kind in kinds
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)

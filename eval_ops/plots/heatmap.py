"""How experts relate to one another, as a picture of two matrices."""

from collections.abc import Sequence
from typing import Any

from eval_ops.plots.figures import ascii_text, new_figure, png


def heatmap(
    names: Sequence[str],
    cosine: Sequence[Sequence[float]],
    sign_conflict: Sequence[Sequence[float]],
) -> bytes:
    """Draw how experts relate, both matrices of shape [n, n] in the order of `names`.

    Left the cosine between task vectors (−1 to 1), right the sign conflict: among the entries
    that both changed, the share changed in opposite directions (0 to 1).
    """
    return png(heatmap_figure(names, cosine, sign_conflict))


def heatmap_figure(
    names: Sequence[str],
    cosine: Sequence[Sequence[float]],
    sign_conflict: Sequence[Sequence[float]],
) -> Any:
    """Return the matplotlib figure that `heatmap` draws; both matrices are [n, n]."""
    n = len(names)
    side = max(2.6, 0.62 * n + 1.4)
    figure, panels = new_figure(2 * side + 1.6, side + 0.7, columns=2)
    labels = [ascii_text(name, 22) for name in names]
    if len(set(labels)) < n:
        labels = [f"{number}: {label}" for number, label in enumerate(labels, start=1)]
    _matrix(figure, panels[0], labels, cosine, "cosine", "RdBu_r", (-1.0, 1.0))
    _matrix(figure, panels[1], labels, sign_conflict, "sign conflict", "Blues", (0.0, 1.0))
    return figure


def _matrix(
    figure: Any,
    axes: Any,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    """Draw one matrix [n, n] with its numbers, in white ink where the colour is dark."""
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    places = range(len(names))
    axes.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    size = 8 if len(names) <= 8 else 6
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ink = "white" if dark else "black"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=size, color=ink
            )
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)

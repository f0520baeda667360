"""How experts relate to one another, as a picture of two matrices.

A picture has a size that does not grow with the experts: of more than MOST_NUMBERED the numbers are
left to the table beside it, names stand at every so many rows, and beyond MOST_CELLS neighbours
share a cell.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval_ops.plots.figures import label_text, new_figure, png

MOST_NUMBERED = 20
"""Experts whose cells are large enough for a number; such a picture has 5 million pixels."""
MOST_NAMES = 36
"""Names along one side of a larger picture, which is as high as so many lines of text."""
LARGE = 8.2
"""Inches of a side of one, whose names stand 0.2 inches apart."""
MOST_CELLS = 240
"""Cells along one side: some three pixels each."""


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
    side = max(2.6, 0.62 * n + 1.4) if n <= MOST_NUMBERED else LARGE
    figure, panels = new_figure(2 * side + 1.6, side + 0.7, columns=2)
    labels = [label_text(name, 22) for name in names]
    if len(set(labels)) < n:
        labels = [f"{number}: {label}" for number, label in enumerate(labels, start=1)]
    _matrix(figure, panels[0], labels, cosine, "cosine", "RdBu_r", (-1.0, 1.0))
    _matrix(figure, panels[1], labels, sign_conflict, "sign conflict", "Blues", (0.0, 1.0))
    if n > MOST_CELLS:
        shared = f"{n} experts; a cell is the mean of up to {_share(n)} x {_share(n)} pairs"
        figure.suptitle(shared, fontsize=9)
    elif n > MOST_NUMBERED:
        figure.suptitle(f"{n} experts", fontsize=9)
    return figure


def _share(n: int) -> int:
    """Neighbours that share a cell's row."""
    return -(-n // MOST_CELLS)


def _pooled(values: Sequence[Sequence[float]], share: int) -> NDArray[np.float64]:
    """Return the means of blocks of `share` × `share` values, smaller ones at the ends."""
    matrix = np.asarray(values, dtype=np.float64)
    starts = np.arange(0, len(matrix), share)
    sums = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    counts = np.diff(np.append(starts, len(matrix)))
    return sums / np.outer(counts, counts)


def _matrix(
    figure: Any,
    axes: Any,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    """Draw one matrix [n, n], with its numbers where there is room."""
    share, n = _share(len(names)), len(names)
    if n <= MOST_NUMBERED:
        lowest, highest = limits
        image = axes.imshow(values, colours, vmin=lowest, vmax=highest, interpolation="nearest")
    else:
        image = _cells(axes, _pooled(values, share), colours, limits)
    step = 1 if n <= MOST_NUMBERED else -(-n // MOST_NAMES)
    names = names[::step]
    places = [number * step / share for number in range(len(names))]
    axes.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)
    if n <= MOST_NUMBERED:
        _write_numbers(axes, image, values)


def _cells(
    axes: Any, values: NDArray[np.float64], colours: str, limits: tuple[float, float]
) -> Any:
    """Draw the cells of a matrix as `imshow` does, by a third of its memory.

    That spreads the numbers over all pixels, in float64, before it colours them.
    """
    from matplotlib.image import PcolorImage

    edges = np.arange(len(values) + 1) - 0.5
    image = PcolorImage(axes, edges, edges, values, cmap=colours)
    image.set_clim(*limits)
    image.set_clip_path(axes.patch)
    axes.add_image(image)
    axes.set(xlim=(-0.5, edges[-1]), ylim=(edges[-1], -0.5), aspect="equal")
    return image


def _write_numbers(axes: Any, image: Any, values: Sequence[Sequence[float]]) -> None:
    """Write a number into each cell, in white ink where the colour is dark."""
    size = 8 if len(values) <= 8 else 6
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ink = "white" if dark else "black"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=size, color=ink
            )

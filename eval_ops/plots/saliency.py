"""How much each moe_expert of a mixture adds, as a picture: layers by moe_experts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval_ops.plots.figures import new_figure, png

MOST_ROWS, MOST_COLUMNS = 128, 256
MOST_NUMBERED = 16
"""Moe_experts whose cells are large enough for a number."""


def saliency_plot(layers: Sequence[int], saliency: Sequence[Sequence[float]]) -> bytes:
    """Draw saliency, [layers, moe_experts], each layer's as a share of its largest."""
    return png(saliency_figure(layers, saliency))


def saliency_figure(layers: Sequence[int], saliency: Sequence[Sequence[float]]) -> Any:
    """Return the matplotlib figure that `saliency_plot` draws."""
    values = np.asarray(saliency, dtype=np.float64)[:MOST_ROWS, :MOST_COLUMNS]
    drawn = values / np.maximum(values.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rows, columns = drawn.shape
    numbered = columns <= MOST_NUMBERED
    width = 2.2 + max(2.4, (0.5 if numbered else 0.08) * columns)
    figure, axes = new_figure(width, 1.4 + 0.24 * rows)
    image = axes.imshow(drawn, "Blues", vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    every = 1 if numbered else 8
    axes.set_xticks(range(0, columns, every), range(0, columns, every), fontsize=8)
    axes.set_yticks(range(rows), list(layers)[:rows], fontsize=8)
    axes.set_xlabel("moe_expert", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    more = " (part of them)" if values.shape != np.shape(saliency) else ""
    axes.set_title(f"Saliency, of each layer's largest{more}", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)
    if numbered:
        for (row, column), value in np.ndenumerate(drawn):
            ink = "white" if value > 0.6 else "black"
            text = f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    return figure

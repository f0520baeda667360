"""What all pictures share: size, colours, ASCII labels, PNG bytes.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Figures are made without
pyplot, so nothing is shared between threads.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval_ops.scores import Mean

DPI = 110
MOST_PIXELS = 5_200_000
"""Of a picture: drawing takes some 20 bytes each, and the PNG is kept in Dagster's event log."""
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
LINE_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
MARKERS = "osD^vPX*"


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure of `width` × `height` inches and its axes (a list of several).

    One that would have more than MOST_PIXELS has fewer dots an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = min(DPI, math.sqrt(MOST_PIXELS / (width * height)))
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, columns)
    for panel in axes if columns > 1 else [axes]:
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def error_bars(means: Sequence["Mean"]) -> list[list[float]]:
    """Return what means have below and above them in their intervals, in percent: two rows."""
    below = [max(0.0, 100 * (mean.value - mean.low)) for mean in means]
    return [below, [max(0.0, 100 * (mean.high - mean.value)) for mean in means]]


def png(figure: Any) -> bytes:
    """Draw a figure and return its PNG bytes, the same for the same figure."""
    from matplotlib import image

    drawer: Any = image  # its types know no None in the metadata, which leaves a key out
    figure.canvas.draw()  # lays out and draws; `savefig` would draw twice for the same bytes
    target, dots = io.BytesIO(), figure.canvas.buffer_rgba()
    drawer.imsave(target, dots, format="png", dpi=figure.dpi, metadata={"Software": None})
    return target.getvalue()


def ascii_text(text: str, width: int) -> str:
    """Return `text` in ASCII, its middle cut out when longer than `width` characters."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii").replace("$", r"\$")
    if len(plain) <= width:
        return plain
    tail = (width - 2) // 2
    return f"{plain[: width - 2 - tail]}..{plain[-tail:]}"

"""What all pictures share: size, colours, ASCII labels, PNG bytes.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Figures are made without
pyplot, so nothing is shared between threads.
"""

import io
from typing import Any

DPI = 110
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
LINE_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
MARKERS = "osD^vPX*"


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure of `width` × `height` inches and its axes (a list of several)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, columns)
    for panel in axes if columns > 1 else [axes]:
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def png(figure: Any) -> bytes:
    """Draw a figure and return its PNG bytes, the same for the same figure."""
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def ascii_text(text: str, width: int) -> str:
    """Return `text` in ASCII, its middle cut out when longer than `width` characters."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii").replace("$", r"\$")
    if len(plain) <= width:
        return plain
    tail = (width - 2) // 2
    return f"{plain[: width - 2 - tail]}..{plain[-tail:]}"

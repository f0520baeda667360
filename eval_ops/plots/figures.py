"""What all pictures share: size, colours, labels, PNG bytes.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Figures are made without
pyplot, so nothing is shared between threads.
"""

import io
import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eval_ops.plots.fonts import families, is_drawn

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

    _set_fonts(figure)
    drawer: Any = image  # its types know no None in the metadata, which leaves a key out
    figure.canvas.draw()  # lays out and draws; `savefig` would draw twice for the same bytes
    target, dots = io.BytesIO(), figure.canvas.buffer_rgba()
    drawer.imsave(target, dots, format="png", dpi=figure.dpi, metadata={"Software": None})
    return target.getvalue()


def label_text(text: str, width: int) -> str:
    """Return `text` as a label, its middle cut out when wider than `width` letters.

    A Chinese character is as wide as two. What no font has a glyph for is written as an escape.
    """
    shown = [each if each.isascii() or is_drawn(each) else _escaped(each) for each in text]
    plain = "".join(shown).replace("$", r"\$")
    if _cells(plain) <= width:
        return plain
    tail = (width - 2) // 2
    return f"{_head(plain, width - 2 - tail)}..{_head(plain[::-1], tail)[::-1]}"


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def _cells(text: str) -> int:
    """How wide a text is, in letters."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _head(text: str, width: int) -> str:
    """The first characters of a text that are no wider together."""
    end = 0
    while end < len(text) and (width := width - _cells(text[end])) >= 0:
        end += 1
    return text[:end]


def _set_fonts(figure: Any) -> None:
    """Draw a figure's texts with Chinese glyphs, where a label of this process asked for any."""
    from matplotlib.text import Text

    if families.cache_info().currsize == 0:  # every label so far is ASCII
        return
    names = list(families())
    for panel in figure.axes:
        panel.tick_params(labelfontfamily=names)
    for text in figure.findobj(Text):
        text.set_fontfamily(names)

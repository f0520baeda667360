"""Glyphs for labels: those of matplotlib's own font, and Chinese ones of a font that a package has.

matplotlib draws a box for a character that its fonts lack, so what no font has is written as an
escape (`\\u4e2d`). The Chinese font is Noto Sans SC (SIL Open Font License 1.1), which the package
pylopdf-fonts-zh-cn ships; the extra `platform` brings it, and without it Chinese is escaped.
"""

import unicodedata
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

PACKAGE, FILE = "pylopdf_fonts_zh_cn", "NotoSansSC-Regular.otf"
OWN = "DejaVu Sans"
"""matplotlib's font, which comes first: a picture without Chinese is what it was."""
RIGHT_TO_LEFT = ("R", "AL", "AN")


def chinese_font() -> Path | None:
    """Return the file of the Chinese font; None where its package is not installed."""
    found = find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        file = Path(folder) / FILE
        if file.is_file():
            return file
    return None


@cache
def families() -> tuple[str, ...]:
    """Return the families that labels are drawn in, the later ones for what the earlier ones lack.

    The Chinese one is made known to matplotlib at the first call: in this process alone.
    """
    from matplotlib import font_manager

    file = chinese_font()
    if file is None:
        return (OWN,)
    manager: Any = font_manager.fontManager
    manager.addfont(str(file))
    return (OWN, str(manager.ttflist[-1].name))


def is_drawn(character: str) -> bool:
    """Return whether a character has a glyph, and is drawn where it stands in the text."""
    direction = unicodedata.bidirectional(character)
    return (
        ord(character) in _glyphs() and character.isprintable() and direction not in RIGHT_TO_LEFT
    )


@cache
def _glyphs() -> frozenset[int]:
    """The code points that the fonts have glyphs for."""
    from matplotlib import font_manager

    points, fonts = set[int](), cast(Any, font_manager)  # its types leave parts open
    for family in families():
        path = fonts.findfont(family, fallback_to_default=False)
        points.update(fonts.get_font(path).get_charmap())
    return frozenset(points)

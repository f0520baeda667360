"""Chinese labels: drawn with the font that a package ships, escaped without it, never a box."""

import pytest

from eval_ops.plots import fonts, heatmap
from eval_ops.plots.figures import label_text, png
from eval_ops.plots.heatmap import heatmap_figure


def test_chinese_is_drawn_and_no_box_in_its_place(recwarn: pytest.WarningsRecorder) -> None:
    matrix = [[1.0, 0.5], [0.5, 1.0]]
    figure = heatmap_figure(["中药专家", "herbs"], matrix, matrix)
    drawn = png(figure)
    assert not recwarn.list  # matplotlib warns of a glyph that it lacks
    families = {tuple(each.get_fontfamily()) for each in figure.axes[0].get_xticklabels()}
    assert families == {("DejaVu Sans", "Noto Sans SC")}
    assert drawn != heatmap(["中医专家", "herbs"], matrix, matrix)  # one character is another


def test_without_the_font_chinese_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "chinese_font", lambda: None)
    fonts.families.cache_clear()
    fonts._glyphs.cache_clear()
    try:
        assert label_text("中é", 20) == "\\u4e2dé"
    finally:
        fonts.families.cache_clear()
        fonts._glyphs.cache_clear()

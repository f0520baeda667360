"""The picture of moe_experts: a row a layer, each in shares of its largest."""

import numpy as np

from eval_ops.plots.saliency import MOST_COLUMNS, saliency_figure, saliency_plot


def test_each_layer_is_drawn_in_shares_of_its_largest() -> None:
    figure = saliency_figure([1, 5], [[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    image = figure.axes[0].get_images()[0].get_array()
    assert image.tolist() == [[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert [each.get_text() for each in figure.axes[0].get_yticklabels()] == ["1", "5"]
    assert {each.get_text() for each in figure.axes[0].texts} == {"0.50", "1.00", "0.00"}


def test_a_large_mixture_has_no_numbers_and_says_what_is_left_out() -> None:
    figure = saliency_figure([0], np.ones((1, MOST_COLUMNS + 1)).tolist())
    assert not figure.axes[0].texts
    assert "part of them" in figure.axes[0].get_title(loc="left")
    assert saliency_plot([0], [[1.0, 2.0]]).startswith(b"\x89PNG")

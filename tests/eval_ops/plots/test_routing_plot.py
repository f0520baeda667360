"""The picture of prompts by moe_experts: cells, labels and what is left out."""

from eval_ops.plots import routing_plot
from eval_ops.plots.routing import MOST_EXPERTS, MOST_PROMPTS, routing_figure


def test_cells_are_shares_in_their_order() -> None:
    figure = routing_figure(["how\n much", "qi"], ["0: math", "1: law"], [[0.25, 0.75], [1, 0]])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.25", "0.75", "1.00", "0.00"]
    assert axes.images[0].get_array().tolist() == [[0.25, 0.75], [1, 0]]
    assert [each.get_text() for each in axes.get_yticklabels()] == ["how much", "qi"]
    assert [each.get_text() for each in axes.get_xticklabels()] == ["0: math", "1: law"]
    assert axes.get_title(loc="left") == "Share of each moe_expert, mean over layers"
    assert routing_plot(["a"], ["b"], [[1.0]]).startswith(b"\x89PNG")


def test_many_are_drawn_in_part() -> None:
    shares = [[0.01] * 100] * 100
    figure = routing_figure([f"p{n}" for n in range(100)], [f"e{n}" for n in range(100)], shares)
    axes = figure.axes[0]
    assert axes.images[0].get_array().shape == (MOST_PROMPTS, MOST_EXPERTS)
    assert not axes.texts
    assert "(part of them)" in axes.get_title(loc="left")

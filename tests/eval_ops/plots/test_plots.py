import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from eval_ops.plots.figures import ascii_text
from eval_ops.plots.plots import (
    _by_kind,
    _shorten,
    _tick_labels,
    coefficient_plot,
    heatmap,
    layer_norm_plot,
    leaderboard_plot,
)
from eval_ops.scores.leaderboard import CoefficientPoint, Entry, Row, rows
from eval_ops.scores.scores import Mean, SuiteScores

ScoresOf = Callable[..., SuiteScores]


class Change(NamedTuple):
    name: str
    layer: int | None
    relative_norm: float


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.fixture
def table(scores_of: ScoresOf) -> tuple[Row, ...]:
    entries = [
        Entry("base", "底座", scores_of(a=([1, 0], [0, 0, 0, 1]))),
        Entry("expert", "x$y$", scores_of(a=([1, 0], [0, 0, 1, 1]))),
        Entry("average", "", scores_of(a=([1, 0], [1, 0, 0, 1])), "average", ("x", "y")),
    ]
    entries += [
        Entry("candidate", "", scores_of(a=([1, 0], [1, 1, 1, n % 2])), f"r{n}", ("x", "y"), "l=1")
        for n in range(6)
    ]
    return rows(entries)


def test_leaderboard_plot_grows_with_its_rows_up_to_the_limit(table: tuple[Row, ...]) -> None:
    heights = [size(leaderboard_plot(table, limit))[1] for limit in (4, 6, 9, 20)]
    assert heights[0] < heights[1] < heights[2] == heights[3]
    assert leaderboard_plot(table) == leaderboard_plot(table)


def test_a_long_leaderboard_keeps_what_the_others_are_measured_by(table: tuple[Row, ...]) -> None:
    kept = _shorten(table, 5)
    assert [row.label for row in kept] == [
        "r1 x+y l=1",
        "r3 x+y l=1",
        "x$y$",
        "average x+y",
        "底座",
    ]
    assert _shorten(table, 9) == list(table)


def test_layer_norm_plot() -> None:
    changes = [
        Change("model.embed_tokens.weight", None, 0.1),
        Change("model.layers.0.self_attn.q_proj.weight", 0, 0.2),
        Change("model.layers.0.self_attn.q_proj.bias", 0, 0.3),
        Change("model.layers.1.self_attn.q_proj.weight", 1, 0.4),
        Change("model.layers.1.mlp.experts.0.up_proj.weight", 1, 0.1),
        Change("model.layers.1.mlp.experts.7.up_proj.weight", 1, 0.3),
        Change("lm_head.weight", None, 0.5),
    ]
    lines, sides = _by_kind(changes)
    assert lines == {
        "q_proj": {0: 0.2, 1: 0.4},
        "q_proj.bias": {0: 0.3},
        "experts.up_proj": {1: 0.2},
    }
    assert sides == {"embed_tokens": 0.1, "lm_head": 0.5}
    assert size(layer_norm_plot("专家", changes)) == (902, 440)
    assert size(layer_norm_plot("nothing", [])) == (902, 440)
    many = [Change(f"h.{n}.mlp.c_fc.weight", n, 0.1) for n in range(40)]
    assert size(layer_norm_plot("deep", many)) == (902, 440)


def test_heatmap_of_names_that_look_alike_when_cut() -> None:
    names = [f"{'very-' * 9}long-{i}-{'name-' * 9}" for i in range(3)]
    matrix = [[1.0, 0.5, -1.0], [0.5, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    width, height = size(heatmap(names, matrix, matrix))
    assert width > 1.8 * height
    assert size(heatmap(["only"], [[1.0]], [[0.0]]))[0] > 300


def test_coefficient_plot() -> None:
    points = [
        CoefficientPoint(f"lambda={n}", Mean(n / 4, 0.1), Mean(n / 5, None)) for n in range(4)
    ]
    assert size(coefficient_plot("ties x+y", points, "lambda=2"))[1] == 374
    assert coefficient_plot("a", points[:1]) != coefficient_plot("a", points[:1], "lambda=0")


def test_parameters_that_never_vary_stand_on_the_axis() -> None:
    assert _tick_labels(["lambda=0.5", "lambda=1.0"]) == (["0.5", "1.0"], "lambda")
    assert _tick_labels(["density=0.3_my_scale=1e-2", "density=0.3_my_scale=2"]) == (
        ["1e-2", "2"],
        "my_scale (density=0.3)",
    )
    assert _tick_labels(["a=1_b=1", "a=2_b=2"]) == (["1, 1", "2, 2"], "a, b")
    assert _tick_labels(["default"]) == (["default"], "coefficient")
    assert _tick_labels([]) == ([], "coefficient")


def test_ascii_text() -> None:
    assert ascii_text("中a", 20) == "\\u4e2da"
    assert ascii_text("a$b", 20) == r"a\$b"
    assert ascii_text("abcdefghij", 8) == "abc..hij"

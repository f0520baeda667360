"""Pictures are looked at before they are drawn: bars, lines, labels and numbers of the figure."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from eval_ops.plots import (
    coefficient_plot,
    front_plot,
    heatmap,
    layer_norm_plot,
    leaderboard_plot,
    retention_plot,
)
from eval_ops.plots.figures import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    MOST_PIXELS,
    ORANGE,
    SKY,
    label_text,
    new_figure,
)
from eval_ops.plots.heatmap import heatmap_figure
from eval_ops.plots.layer_norms import layer_norm_figure
from eval_ops.plots.leaderboard import leaderboard_figure
from eval_ops.plots.sweep import coefficient_figure
from eval_ops.plots.tradeoffs import front_figure, retention_figure
from eval_ops.scores import Mean, SuiteScores
from eval_ops.scores.leaderboard import CoefficientPoint, Entry, Row, rows
from eval_ops.scores.matrices.retention import Retention

ScoresOf = Callable[..., SuiteScores]


class Change(NamedTuple):
    name: str
    layer: int | None
    relative_norm: float


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def colour(artist: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(artist.get_facecolor()).upper()


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bars(axes: Any) -> list[tuple[float, float]]:
    """(place, height) of each upright bar."""
    return [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]


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


def test_a_leaderboard_shows_every_row_best_on_top(table: tuple[Row, ...]) -> None:
    figure = leaderboard_figure(table)
    (axes,) = figure.axes
    labels = [label_text(row.label, 60) for row in table]
    assert ticks(axes.yaxis) == labels
    assert labels[0] == "r1 x+y l=1"
    assert r"x\$y\$" in labels
    assert "底座" in labels
    top, bottom = axes.get_ylim()[1], axes.get_ylim()[0]
    assert top < 0 < len(table) - 1 < bottom
    assert [bar.get_width() for bar in axes.patches] == [100 * row.mean.value for row in table]
    values = [f"{100 * row.mean.value:.1f}" for row in table]
    assert [text.get_text() for text in axes.texts] == values
    # The fixture's candidates r1, r3, r5 have all of 4 right: 100; the base 1 of 4: 25.
    # Wilson's interval of that is 4.6 to 69.9.
    assert values[:3] == ["100.0"] * 3
    base = next(place for place, row in enumerate(table) if row.kind == "base")
    whiskers = axes.collections[0].get_segments()
    assert whiskers[base].tolist() == [
        [pytest.approx(4.56, abs=0.01), base],
        [pytest.approx(69.94, abs=0.01), base],
    ]
    kinds = {"base": GREY, "expert": ORANGE, "average": SKY, "candidate": BLUE}
    assert [colour(bar) for bar in axes.patches] == [kinds[row.kind].upper() for row in table]
    assert axes.get_title(loc="left") == "Leaderboard"
    assert legend(figure) == [
        "base model",
        "single expert",
        "plain average",
        "merged, coefficient chosen on validation",
    ]


def test_a_long_leaderboard_keeps_what_the_others_are_measured_by(table: tuple[Row, ...]) -> None:
    figure = leaderboard_figure(table, 5)
    assert ticks(figure.axes[0].yaxis) == [
        "r1 x+y l=1",
        "r3 x+y l=1",
        r"x\$y\$",
        "average x+y",
        "底座",
    ]
    title = figure.axes[0].get_title(loc="left")
    assert title == "Leaderboard (4 more merged checkpoints not shown)"
    assert len(ticks(leaderboard_figure(table, len(table)).axes[0].yaxis)) == len(table)
    # However few rows are asked for: the base, the expert, the best average, and one more.
    assert len(ticks(leaderboard_figure(table, 1).axes[0].yaxis)) == 4


def test_a_leaderboard_of_many_experts_shows_the_best_of_them(scores_of: ScoresOf) -> None:
    entries = [Entry("expert", f"e{n}", scores_of(a=([1, 0], [1, 0, 1, 0]))) for n in range(40)]
    figure = leaderboard_figure(rows(entries), 24)
    assert len(ticks(figure.axes[0].yaxis)) == 24
    title = figure.axes[0].get_title(loc="left")
    assert title == "Leaderboard (16 more rows not shown)"


def test_a_leaderboard_of_base_models_alone(scores_of: ScoresOf) -> None:
    figure = leaderboard_figure(rows([Entry("base", "b", scores_of(a=([1], [1])))]))
    assert legend(figure) == ["base model"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [100.0]


CHANGES = [
    Change("model.embed_tokens.weight", None, 0.1),
    Change("model.layers.0.self_attn.q_proj.weight", 0, 0.2),
    Change("model.layers.0.self_attn.q_proj.bias", 0, 0.3),
    Change("model.layers.1.self_attn.q_proj.weight", 1, 0.4),
    Change("model.layers.1.mlp.experts.0.up_proj.weight", 1, 0.1),
    Change("model.layers.1.mlp.experts.7.up_proj.weight", 1, 0.3),
    Change("lm_head.weight", None, 0.5),
]


def test_layer_norms_are_lines_over_layers_and_bars_beside_them() -> None:
    figure = layer_norm_figure("专家", CHANGES)
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "q_proj": [[0, 0.2], [1, 0.4]],
        "q_proj.bias": [[0, 0.3]],
        "experts.up_proj": [[1, pytest.approx(0.2)]],
    }
    assert legend(figure) == list(lines)
    assert len({line.get_color() for line in axes.lines}) == 3
    assert bars(axes) == [(-1, 0.1), (2, 0.5)], "embeddings before the layers, the head after"
    assert ticks(axes.xaxis) == ["0", "1", "embed_tokens", "lm_head"]
    assert [label.get_rotation() for label in axes.get_xticklabels()] == [0, 0, 35, 35]
    assert axes.get_title(loc="left") == "Task vector of 专家"
    assert axes.get_ylim()[0] == 0


def test_layer_norms_of_nothing_and_of_many_layers() -> None:
    nothing = layer_norm_figure("nothing", [])
    assert (nothing.legends, nothing.axes[0].lines[:], ticks(nothing.axes[0].xaxis)) == ([], [], [])
    many = [Change(f"h.{n}.mlp.c_fc.weight", n, 0.1) for n in range(40)]
    many += [Change("wte.weight", None, 0.5), Change("wpe.weight", None, 0.4)]
    (axes,) = layer_norm_figure("deep", many).axes
    # Every third of 40 layers is numbered, since at most 16 numbers fit.
    assert ticks(axes.xaxis) == [*map(str, range(0, 40, 3)), "wte", "wpe"]
    gap = 40 / 12
    assert bars(axes) == [(pytest.approx(-2 * gap), 0.5), (pytest.approx(-gap), 0.4)]
    assert [line.get_label() for line in axes.lines] == ["c_fc"]


def test_kinds_of_tensors_look_different() -> None:
    changes = [Change(f"layers.0.kind_{letter}.weight", 0, 0.1) for letter in "abcdefghijklmnopq"]
    (axes,) = layer_norm_figure("many kinds", changes).axes
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(changes)


def numbers(axes: Any) -> list[list[str]]:
    """What is written into the cells of a matrix, row by row."""
    side = len(ticks(axes.yaxis))
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    return [[cells[column, row] for column in range(side)] for row in range(side)]


def test_heatmaps_say_their_numbers() -> None:
    cosine = [[1.0, 0.5], [0.5, 1.0]]
    conflict = [[0.0, 0.25], [0.25, 0.0]]
    figure = heatmap_figure(["herbs", "成语"], cosine, conflict)
    left, right = (axes for axes in figure.axes if axes.get_title())
    assert (left.get_title(), right.get_title()) == ("cosine", "sign conflict")
    assert numbers(left) == [["1.00", "0.50"], ["0.50", "1.00"]]
    assert numbers(right) == [["0.00", "0.25"], ["0.25", "0.00"]]
    assert left.images[0].get_clim() == (-1, 1)
    assert right.images[0].get_clim() == (0, 1)
    assert ticks(left.xaxis) == ticks(right.yaxis) == ["herbs", "成语"]
    # White ink on the dark red of 1, black on the nearly white of 0.
    assert [text.get_color() for text in left.texts][:1] == ["white"]
    assert [text.get_color() for text in right.texts][:1] == ["black"]


def test_heatmap_of_names_that_look_alike_when_cut() -> None:
    names = [f"{'very-' * 9}long-{i}-{'name-' * 9}" for i in range(3)]
    matrix = [[1.0, 0.5, -1.0], [0.5, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    labels = ticks(heatmap_figure(names, matrix, matrix).axes[0].xaxis)
    assert [label[:8] for label in labels] == ["1: very-", "2: very-", "3: very-"]


def pixels(figure: Any) -> int:
    width, height = figure.get_size_inches() * figure.dpi
    return round(width * height)


@pytest.mark.parametrize("experts", [20, 21, 150, 500])
def test_heatmaps_of_any_number_of_experts_have_one_size(experts: int) -> None:
    names = [f"expert-{number:03}" for number in range(experts)]
    matrix = [[float(row == column) for column in range(experts)] for row in range(experts)]
    figure = heatmap_figure(names, matrix, matrix)
    left, right = (axes for axes in figure.axes if axes.get_title())
    assert pixels(figure) <= MOST_PIXELS
    assert len(left.texts) == (experts**2 if experts <= 20 else 0)
    assert len(ticks(left.xaxis)) <= 36
    assert ticks(left.yaxis)[0] == "expert-000"
    assert max(right.images[0].get_array().shape) <= 240
    if experts > 20:
        png = heatmap(names, matrix, matrix)
        assert len(png) < 1_000_000
        assert str(experts) in figure.get_suptitle()


def test_neighbours_share_a_cell_as_their_mean() -> None:
    matrix = [[float(row // 3 == column // 3) for column in range(500)] for row in range(500)]
    figure = heatmap_figure([str(n) for n in range(500)], matrix, matrix)
    shown = next(axes for axes in figure.axes if axes.get_title()).images[0].get_array()
    assert shown.shape == (167, 167)
    assert shown[0, 0] == 1
    assert shown[166, 166] == 1  # of two by two
    assert shown[0, 1] == 0


def test_a_picture_of_many_kinds_and_rows_has_a_bound() -> None:
    changes = [Change(f"layers.{n % 4}.kind_{n:03}.weight", n % 4, n / 100) for n in range(100)]
    changes += [Change(f"outer_{number:03}.weight", None, 0.1) for number in range(100)]
    (axes,) = layer_norm_figure("many", changes).axes
    assert len(axes.lines) == 24
    assert len(bars(axes)) == 24
    assert axes.get_title(loc="left").endswith("(152 more kinds moved less)")
    assert axes.lines[-1].get_label() == "kind_099"


def test_figures_have_fewer_dots_where_they_would_have_too_many_pixels() -> None:
    assert pixels(new_figure(8.0, 4.0)[0]) == 8 * 4 * DPI * DPI
    assert pixels(new_figure(200.0, 100.0)[0]) <= MOST_PIXELS + 1


def test_a_sweep_shows_both_means_and_marks_the_choice() -> None:
    points = [
        CoefficientPoint(
            f"lambda={n}", Mean(n / 4, 0.1, n / 4 - 0.1, n / 4 + 0.1), Mean(n / 5, None)
        )
        for n in range(4)
    ]
    figure = coefficient_figure("ties x+y", points, "lambda=2")
    (axes,) = figure.axes
    validation, test = axes.containers
    assert validation[0].get_xydata().tolist() == [[n - 0.05, 25 * n] for n in range(4)]
    assert test[0].get_ydata().tolist() == [pytest.approx(20 * n) for n in range(4)]
    segments = [bar.tolist() for bar in validation[2][0].get_segments()]
    assert segments[2] == [[1.95, pytest.approx(40)], [1.95, pytest.approx(60)]]
    assert {(low[1], high[1]) for low, high in test[2][0].get_segments()} == {(0.0, 100.0)}
    chosen = [line for line in axes.lines if line.get_label() == "chosen"]
    assert [(line.get_xdata()[0], line.get_color()) for line in chosen] == [(2, GREEN)]
    assert sorted(legend(figure)) == ["chosen", "test (reports)", "validation (chooses)"]
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("ties x+y", "lambda")
    assert ticks(axes.xaxis) == ["0", "1", "2", "3"]
    unmarked = coefficient_figure("ties x+y", points).axes[0]
    assert "chosen" not in [line.get_label() for line in unmarked.lines]


@pytest.mark.parametrize(
    ("coefficients", "labels", "name"),
    [
        (["lambda=0.5", "lambda=1.0"], ["0.5", "1.0"], "lambda"),
        (
            ["density=0.3_my_scale=1e-2", "density=0.3_my_scale=2"],
            ["1e-2", "2"],
            "my_scale (density=0.3)",
        ),
        (["a=1_b=1", "a=2_b=2"], ["1, 1", "2, 2"], "a, b"),
        (["a=1", "b=1"], ["a=1", "b=1"], "coefficient"),
        (["lambda=1"], ["1"], "lambda"),
        (["default"], ["default"], "coefficient"),
        ([], [], "coefficient"),
    ],
)
def test_parameters_that_never_vary_stand_on_the_axis(
    coefficients: list[str], labels: list[str], name: str
) -> None:
    points = [CoefficientPoint(each, Mean(0.5, 0.1), Mean(0.5, 0.1)) for each in coefficients]
    axes = coefficient_figure("t", points).axes[0]
    assert (ticks(axes.xaxis), axes.get_xlabel()) == (labels, name)
    slanted = any(len(label) > 6 for label in labels)
    assert {label.get_rotation() for label in axes.get_xticklabels()} <= {30.0 if slanted else 0.0}


def test_every_plot_is_a_png_and_the_same_twice(table: tuple[Row, ...]) -> None:
    points = [CoefficientPoint("l=1", Mean(0.5, 0.1), Mean(0.5, 0.1))]
    plots = [
        lambda: leaderboard_plot(table),
        lambda: layer_norm_plot("专家", CHANGES),
        lambda: heatmap(["only"], [[1.0]], [[0.0]]),
        lambda: coefficient_plot("a", points, "l=1"),
    ]
    for plot in plots:
        assert plot() == plot()
        width, height = size(plot())
        assert min(width, height) > 200
    assert size(leaderboard_plot(table, 4))[1] < size(leaderboard_plot(table, 9))[1]


def test_label_text() -> None:
    assert label_text("中a", 20) == "中a"
    assert label_text("中医药知识问答", 8) == "中..答"
    assert label_text("中医药知识问答", 14) == "中医药知识问答"
    assert label_text("é → 🦊 שלום", 90).startswith("é → \\U0001f98a \\u05e9")
    assert label_text("a$b", 20) == r"a\$b"
    assert label_text("abcdefghij", 8) == "abc..hij"


def test_retention_is_a_cell_a_merge_and_expert() -> None:
    cells = [
        Retention("ties a+b", "a", ("x",), 0.5, 0.9, 0.8, 0.95, 30, 3),
        Retention("ties a+b", "b", (), 0.0, None, None, None, 0, 0),
        Retention("linear a+c", "a", ("x",), 0.5, 0.5, 0.4, 0.6, 30, 15),
    ]
    axes = retention_figure(cells).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["90 (80 to 95)", "no gain", "50 (40 to 60)"]
    assert ticks(axes.xaxis) == ["a", "b"]
    assert ticks(axes.yaxis) == ["ties a+b", "linear a+c"]
    assert min(size(retention_plot(cells))) > 0


def test_a_front_is_drawn_and_named() -> None:
    names, points = ["x", "y", "z"], [(0.1, 0.9), (0.5, 0.5), (0.4, 0.4)]
    figure = front_figure("a against b", ("a", "b"), names, points)
    axes = figure.axes[0]
    others, best = (artist.get_offsets().tolist() for artist in axes.collections)
    assert others == [[40.0, 40.0]]
    assert best == [[10.0, 90.0], [50.0, 50.0]]
    assert figure.get_supxlabel() == "1: x\n2: y"
    short = front_figure("l", ("tokens", "mean"), names, points, smaller_is_better=True)
    assert short.get_supxlabel() == "1: x"
    assert min(size(front_plot("a against b", ("a", "b"), names, points))) > 0


def test_sweeps_have_bands() -> None:
    figure = coefficient_figure("ties", [CoefficientPoint("x=1", *sweep_means()) for _ in "ab"])
    assert len([each for each in figure.axes[0].collections if hasattr(each, "get_paths")]) >= 2


def sweep_means() -> tuple[Mean, Mean]:
    return Mean(0.5, 0.1, 0.4, 0.6), Mean(0.6, 0.1, 0.5, 0.7)

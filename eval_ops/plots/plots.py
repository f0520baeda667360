"""Pictures for people: each function returns the bytes of one PNG.

Labels are ASCII, since matplotlib's own fonts have no Chinese: other characters are written as
escapes (`\\u4e2d`). Colours can be told apart by colour-blind readers.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from eval_ops.plots.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LINE_COLOURS,
    MARKERS,
    ORANGE,
    SKY,
    ascii_text,
    new_figure,
    png,
)
from eval_ops.scores.leaderboard import CoefficientPoint, Kind, Row
from eval_ops.scores.scores import Mean

KIND_COLOURS: dict[Kind, str] = {
    "base": GREY,
    "expert": ORANGE,
    "average": SKY,
    "candidate": BLUE,
}
PARAMETER = re.compile(r"([A-Za-z]\w*?)=(.+?)(?:_(?=[A-Za-z]\w*=)|$)")
"""One `name=value` of a coefficient id."""


class TensorNorm(Protocol):
    """What `layer_norm_plot` reads of one tensor of a task vector.

    `layer` is the layer's number (None for embeddings, the last norm, the output head);
    `relative_norm` is the norm of expert − base over the norm of base.
    """

    @property
    def name(self) -> str:
        """The tensor's name in the checkpoint."""
        ...

    @property
    def layer(self) -> int | None:
        """The layer's number, or None."""
        ...

    @property
    def relative_norm(self) -> float:
        """Norm of the difference over norm of the base."""
        ...


def leaderboard_plot(table: Sequence[Row], limit: int = 24) -> bytes:
    """Draw test means with standard errors as horizontal bars, best on top.

    Of a longer table the first rows are kept, every base model and expert, and the best average.
    """
    shown = _shorten(table, limit)
    height = 1.3 + 0.27 * max(1, len(shown))
    figure, axes = new_figure(9.2, height)
    places = range(len(shown))
    axes.barh(
        places,
        [100 * row.mean.value for row in shown],
        xerr=[100 * (row.mean.stderr or 0) for row in shown],
        color=[KIND_COLOURS[row.kind] for row in shown],
        height=0.72,
        error_kw={"ecolor": BLACK, "elinewidth": 1, "capsize": 2},
    )
    for place, row in zip(places, shown, strict=True):
        end = 100 * (row.mean.value + (row.mean.stderr or 0))
        axes.text(end + 1, place, f"{100 * row.mean.value:.1f}", va="center", fontsize=8)
    axes.set_yticks(places, [ascii_text(row.label, 60) for row in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("mean test accuracy, percent (bars: standard error)", fontsize=9)
    hidden = len(table) - len(shown)
    axes.set_title(
        "Leaderboard" + (f" ({hidden} more merged checkpoints not shown)" if hidden else ""),
        fontsize=10,
        loc="left",
    )
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    _kind_legend(figure, [row.kind for row in shown])
    return png(figure)


def layer_norm_plot(expert: str, tensors: Iterable[TensorNorm]) -> bytes:
    """Draw how far each layer of an expert moved from its base, one line a kind of tensor.

    The value is the relative norm of the task vector; tensors of the same kind and layer (such
    as the moe_experts of a layer) are averaged. Tensors outside the layers stand at the sides.
    """
    lines, sides = _by_kind(tensors)
    layers = sorted({layer for line in lines.values() for layer in line})
    front = [kind for kind in sides if "emb" in kind or "wte" in kind or "wpe" in kind]
    back = [kind for kind in sides if kind not in front]
    figure, axes = new_figure(8.2, 4.0)
    for index, (kind, line) in enumerate(lines.items()):
        axes.plot(
            [layers.index(layer) for layer in line],
            list(line.values()),
            color=LINE_COLOURS[index % len(LINE_COLOURS)],
            marker=MARKERS[(index + index // len(LINE_COLOURS)) % len(MARKERS)],
            linestyle=("-", "--", ":")[index // len(LINE_COLOURS) % 3],
            markersize=4.5 if len(layers) <= 12 else 3,
            linewidth=1.3 if len(layers) <= 12 else 0.9,
            label=ascii_text(kind, 26),
        )
    gap = max(1.0, len(layers) / 12)
    last = len(layers) - 1
    places = [-gap * (len(front) - i) for i in range(len(front))]
    places += [last + gap * (i + 1) for i in range(len(back))]
    if sides:
        heights = [sides[kind] for kind in (*front, *back)]
        axes.bar(places, heights, width=gap / 2, color="#bbbbbb")
    step = max(1, -(-len(layers) // 16))
    marks = [(float(i), str(layer)) for i, layer in enumerate(layers) if i % step == 0]
    marks += [(p, ascii_text(k, 22)) for p, k in zip(places, (*front, *back), strict=True)]
    axes.set_xticks([place for place, _ in marks], [text for _, text in marks], fontsize=8)
    for label in axes.get_xticklabels():
        if not label.get_text().isdigit():
            label.set_rotation(35)
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer", fontsize=9)
    axes.set_ylabel("norm of (expert - base) / norm of base", fontsize=9)
    axes.set_title(f"Task vector of {ascii_text(expert, 60)}", fontsize=10, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    if lines:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return png(figure)


def heatmap(
    names: Sequence[str],
    cosine: Sequence[Sequence[float]],
    sign_conflict: Sequence[Sequence[float]],
) -> bytes:
    """Draw how experts relate, both matrices of shape [n, n] in the order of `names`.

    Left the cosine between task vectors (−1 to 1), right the sign conflict: among the entries
    that both changed, the share changed in opposite directions (0 to 1).
    """
    n = len(names)
    side = max(2.6, 0.62 * n + 1.4)
    figure, panels = new_figure(2 * side + 1.6, side + 0.7, columns=2)
    labels = [ascii_text(name, 22) for name in names]
    if len(set(labels)) < n:
        labels = [f"{number}: {label}" for number, label in enumerate(labels, start=1)]
    _matrix(figure, panels[0], labels, cosine, "cosine", "RdBu_r", (-1.0, 1.0))
    _matrix(figure, panels[1], labels, sign_conflict, "sign conflict", "Blues", (0.0, 1.0))
    return png(figure)


def coefficient_plot(
    title: str, points: Sequence[CoefficientPoint], chosen: str | None = None
) -> bytes:
    """Draw validation and test means (± one standard error) over a sweep's coefficients.

    `chosen` is the coefficient id to mark. Parameters that never vary move from ticks to the axis.
    """
    labels, name = _tick_labels([point.coefficient for point in points])
    figure, axes = new_figure(max(4.6, 2.2 + 0.62 * len(points)), 3.4)
    places = list(range(len(points)))
    picks: list[tuple[str, str, str, Callable[[CoefficientPoint], Mean], float]] = [
        ("validation (chooses)", BLUE, "o", lambda point: point.validation, -0.05),
        ("test (reports)", ORANGE, "s", lambda point: point.test, 0.05),
    ]
    for label, colour, marker, pick, shift in picks:
        means = [pick(point) for point in points]
        axes.errorbar(
            [place + shift for place in places],
            [100 * mean.value for mean in means],
            yerr=[100 * (mean.stderr or 0) for mean in means],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
            label=label,
        )
    for place, point in zip(places, points, strict=True):
        if point.coefficient == chosen:
            axes.axvline(place, color=GREEN, linewidth=9, alpha=0.25, zorder=0, label="chosen")
    slanted = max((len(label) for label in labels), default=0) > 6
    axes.set_xticks(places, labels, fontsize=8)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(points) - 0.5)
    axes.set_xlabel(name, fontsize=9)
    axes.set_ylabel("mean accuracy, percent", fontsize=9)
    axes.set_title(ascii_text(title, 60), fontsize=10, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return png(figure)


def _shorten(table: Sequence[Row], limit: int) -> list[Row]:
    if len(table) <= limit:
        return list(table)
    anchors = [row for row in table if row.kind in ("base", "expert")]
    anchors += [row for row in table if row.kind == "average"][:1]
    others = [row for row in table if all(row is not anchor for anchor in anchors)]
    kept = {id(row) for row in anchors + others[: max(1, limit - len(anchors))]}
    return [row for row in table if id(row) in kept]


def _kind_legend(figure: Any, kinds: Sequence[Kind]) -> None:
    from matplotlib.patches import Patch

    names = {"base": "base model", "expert": "single expert", "average": "plain average"}
    patches = [
        Patch(color=colour, label=names.get(kind, "merged, coefficient chosen on validation"))
        for kind, colour in KIND_COLOURS.items()
        if kind in kinds
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _by_kind(
    tensors: Iterable[TensorNorm],
) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Return relative norms as kind → layer → mean, and kind → mean outside the layers."""
    lines: dict[str, dict[int, list[float]]] = {}
    sides: dict[str, list[float]] = {}
    for tensor in tensors:
        kind = _kind(tensor.name, tensor.layer)
        if tensor.layer is None:
            sides.setdefault(kind, []).append(tensor.relative_norm)
        else:
            lines.setdefault(kind, {}).setdefault(tensor.layer, []).append(tensor.relative_norm)
    return (
        {
            kind: {layer: _mean(values) for layer, values in sorted(line.items())}
            for kind, line in lines.items()
        },
        {kind: _mean(values) for kind, values in sides.items()},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _kind(name: str, layer: int | None) -> str:
    """Return what is left of a tensor's name: `self_attn.q_proj`, `mlp.experts.up_proj`."""
    parts = name.removesuffix(".weight").split(".")
    if layer is not None and str(layer) in parts:
        parts = parts[parts.index(str(layer)) + 1 :]
    elif parts[0] in ("model", "transformer"):
        parts = parts[1:]
    parts = [part for part in parts if not part.isdigit()]
    for block in ("self_attn", "attn", "attention", "mlp"):
        if len(parts) > 1 and parts[0] == block:
            parts = parts[1:]
    return ".".join(parts)


def _matrix(
    figure: Any,
    axes: Any,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    places = range(len(names))
    axes.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    size = 8 if len(names) <= 8 else 6
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ink = "white" if dark else "black"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=size, color=ink
            )
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)


def _tick_labels(coefficients: Sequence[str]) -> tuple[list[str], str]:
    """Return tick labels and the axis name; parameters that never vary stand on the axis."""
    points = [dict(PARAMETER.findall(coefficient)) for coefficient in coefficients]
    names = list(points[0]) if points else []
    if not names or any(list(point) != names for point in points):
        return [ascii_text(coefficient, 28) for coefficient in coefficients], "coefficient"
    varying = [name for name in names if len({point[name] for point in points}) > 1] or names[:1]
    fixed = ", ".join(f"{name}={points[0][name]}" for name in names if name not in varying)
    axis = ", ".join(varying) + (f" ({fixed})" if fixed else "")
    labels = [", ".join(point[name] for name in varying) for point in points]
    return [ascii_text(label, 20) for label in labels], ascii_text(axis, 60)

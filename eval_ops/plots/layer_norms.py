"""How far an expert moved from its base, layer by layer, as a picture."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from eval_ops.plots.figures import LINE_COLOURS, MARKERS, label_text, new_figure, png


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


def layer_norm_plot(expert: str, tensors: Iterable[TensorNorm]) -> bytes:
    """Draw how far each layer of an expert moved from its base, one line a kind of tensor.

    The value is the relative norm of the task vector; tensors of the same kind and layer (such
    as the moe_experts of a layer) are averaged. Tensors outside the layers stand at the sides.
    """
    return png(layer_norm_figure(expert, tensors))


def layer_norm_figure(expert: str, tensors: Iterable[TensorNorm]) -> Any:
    """Return the matplotlib figure that `layer_norm_plot` draws."""
    every_line, every_side = _by_kind(tensors)
    most = {kind: max(line.values()) for kind, line in every_line.items()}
    lines = {kind: every_line[kind] for kind in _most_moved(most)}
    sides = {kind: every_side[kind] for kind in _most_moved(every_side)}
    hidden = len(every_line) - len(lines) + len(every_side) - len(sides)
    layers = sorted({layer for line in lines.values() for layer in line})
    figure, axes = new_figure(8.2, 4.0)
    _draw_lines(axes, lines, layers)
    marks = [(float(place), str(layer)) for place, layer in _spread(layers)]
    marks += _draw_sides(axes, sides, len(layers))
    axes.set_xticks([place for place, _ in marks], [text for _, text in marks], fontsize=8)
    for label in axes.get_xticklabels():
        if not label.get_text().isdigit():
            label.set_rotation(35)
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer", fontsize=9)
    axes.set_ylabel("norm of (expert - base) / norm of base", fontsize=9)
    left_out = f" ({hidden} more kinds moved less)" if hidden else ""
    axes.set_title(f"Task vector of {label_text(expert, 60)}{left_out}", fontsize=10, loc="left")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    if lines:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


MOST_KINDS = 24
"""Lines, and bars beside them, that can be told apart; those that moved most are drawn."""
FEW_LAYERS = 12
"""Up to so many layers there is room for thick lines."""
MOST_TICKS = 16
"""More numbers of layers than this would touch."""


def _most_moved(moved: Mapping[str, float]) -> list[str]:
    """Name the kinds that moved most, in their order."""
    kept = sorted(moved, key=lambda kind: -moved[kind])[:MOST_KINDS]
    return [kind for kind in moved if kind in kept]


def _draw_lines(axes: Any, lines: Mapping[str, Mapping[int, float]], layers: list[int]) -> None:
    """Draw one line a kind of tensor; no two of the first 24 look alike."""
    few = len(layers) <= FEW_LAYERS
    place_of = {layer: place for place, layer in enumerate(layers)}
    for index, (kind, line) in enumerate(lines.items()):
        turn = index // len(LINE_COLOURS)
        axes.plot(
            [place_of[layer] for layer in line],
            list(line.values()),
            color=LINE_COLOURS[index % len(LINE_COLOURS)],
            marker=MARKERS[(index + turn) % len(MARKERS)],
            linestyle=("-", "--", ":")[turn % 3],
            markersize=4.5 if few else 3,
            linewidth=1.3 if few else 0.9,
            label=label_text(kind, 26),
        )


def _draw_sides(axes: Any, sides: Mapping[str, float], layers: int) -> list[tuple[float, str]]:
    """Draw a bar for each tensor outside the layers: embeddings on the left, the rest on the right.

    Returns the place and the label of each bar.
    """
    front = [kind for kind in sides if "emb" in kind or "wte" in kind or "wpe" in kind]
    back = [kind for kind in sides if kind not in front]
    gap = max(1.0, layers / 12)
    places = [-gap * (len(front) - number) for number in range(len(front))]
    places += [layers - 1 + gap * (number + 1) for number in range(len(back))]
    kinds = [*front, *back]
    if kinds:
        axes.bar(places, [sides[kind] for kind in kinds], width=gap / 2, color="#bbbbbb")
    return [(place, label_text(kind, 22)) for place, kind in zip(places, kinds, strict=True)]


def _spread(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Return (place, layer) of the layers whose numbers are written."""
    step = max(1, -(-len(layers) // MOST_TICKS))
    return [(place, layer) for place, layer in enumerate(layers) if place % step == 0]


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

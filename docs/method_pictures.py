"""A picture of every merge method: what it makes of the entries of a toy tensor.

Left: each entry is a point, its place the values in the first two inputs, its colour the merged
value, or a cross where that is zero. Right: the merged value against the plain average of all
inputs. The inputs are the same for all methods, and so are axes and colours. Nothing in a file
depends on the day or the machine; with the same versions of numpy, matplotlib and pillow its bytes
are the same.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from docs.method_examples import input_names, parameters, starts_at_base
from merge_ops.kernels.torch_arithmetic import TorchArithmetic
from merge_ops.measures.measure import Block, TensorJob, measure_whole
from merge_ops.stream.rounding import worked_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from numpy.typing import NDArray

    from merge_ops.methods import MergeMethod

SIDE = 20  # the toy tensor is SIDE x SIDE
UNIT = 1e-3  # a usual size of what fine-tuning changes
SHOWN = 5.0  # axes reach this many units; the toy stays a little below
ALONE = 0.15  # share of entries that one expert changed and the others did not
SEED = 3
STYLE: dict[Any, Any] = {"font.size": 8, "font.family": "DejaVu Sans", "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "axes.linewidth": 0.6, "path.simplify": False}
COLOURS = 224
ARITHMETIC = TorchArithmetic()


def toy(method: MergeMethod) -> list[torch.Tensor]:
    """Inputs of SIDE x SIDE entries: correlated, heavy-tailed; task vectors also hold zeros.

    All share part of their values, most entries are small and a few large. In task vectors the
    first entries were changed by the first expert alone, the next by the second, and so on.
    """
    generator = np.random.default_rng(SEED)
    names = input_names(method)
    common = generator.laplace(size=SIDE * SIDE)
    values = [0.6 * common + 0.8 * generator.laplace(size=SIDE * SIDE) for _ in names]
    values = [0.95 * SHOWN * np.tanh(each / SHOWN) for each in values]
    order = generator.permutation(SIDE * SIDE)
    alone = int(ALONE * SIDE * SIDE)
    if method.inputs == "task_vectors" and len(names) > 1:
        for number in range(len(names)):
            places = order[number * alone : (number + 1) * alone]
            for other in set(range(len(names))) - {number}:
                values[other][places] = 0
    return [torch.tensor(each * UNIT, dtype=torch.float32).view(SIDE, SIDE) for each in values]


def merged(method: MergeMethod, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The real method on the toy, as the stream would call it for a tensor of one block."""
    chosen = parameters(method)
    shaped = tensors
    if method.span_for([chosen]) == "element":
        shaped = [each.reshape(-1) for each in tensors]
    block = Block(0, 0, shaped)
    known = None
    if method.measure is not None:
        names = tuple(input_names(method))
        measure = method.measure(
            TensorJob("toy.weight", (SIDE, SIDE), names, 0, ARITHMETIC), [chosen]
        )
        measure_whole(measure, block, ARITHMETIC)
        known = measure.at(block, 0)
    result = method.function(shaped, known, chosen, ARITHMETIC)
    return ARITHMETIC.tensor(worked_out(result, ARITHMETIC)).view(SIDE, SIDE)


def picture(method: MergeMethod) -> bytes:
    """The PNG file."""
    tensors = toy(method)
    out = merged(method, tensors).numpy().ravel() / UNIT
    seen = [each.numpy().ravel() / UNIT for each in tensors]
    names = [axis_name(method, name) for name in input_names(method)]
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 2.9), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        if len(seen) == 1:
            number = np.arange(out.size, dtype=np.float64)
            points = scatter(left, number, seen[0], out)
            label(left, "number of the entry", names[0], "each entry, coloured by merged value")
            left.set_ylim(-SHOWN, SHOWN)
            scatter(right, seen[0], out, out)
            label(right, names[0], "merged value", "merged value against the input")
        else:
            points = scatter(left, seen[0], seen[1], out)
            label(left, names[0], names[1], "each entry, coloured by merged value")
            left.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN))
            scatter(right, np.mean(seen, axis=0), out, out)
            label(right, "plain average", "merged value", "merged value against the average")
        right.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN))
        right.plot((-SHOWN, SHOWN), (-SHOWN, SHOWN), color="0.6", lw=0.7, ls="--", zorder=0)
        bar = figure.colorbar(points, ax=left, shrink=0.9, pad=0.02)
        bar.outline.set_linewidth(0.4)
        return small_png(figure)


def axis_name(method: MergeMethod, name: str) -> str:
    """What one input is called on an axis."""
    if method.inputs == "task_vectors":
        return f"change in {name.replace('-', ' ')}"
    if starts_at_base(method):
        return name.replace("-", " ")
    return name.replace("expert-", "model ")


def scatter(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], out: NDArray[np.float64]
) -> PathCollection:
    """Points from blue (negative) over white to red; crosses where the merged value is zero."""
    kept = out != 0
    axes.scatter(x[~kept], y[~kept], c="0.55", s=9, marker="x", linewidths=0.6, zorder=2)
    return axes.scatter(
        x[kept], y[kept], c=out[kept], s=12, cmap="RdBu_r", vmin=-3, vmax=3, edgecolors="0.45",
        linewidths=0.3, zorder=2,
    )  # fmt: skip


def label(axes: Axes, x: str, y: str, title: str) -> None:
    """Names of both axes, and lines through zero."""
    axes.set_xlabel(x, labelpad=2)
    axes.set_ylabel(y, labelpad=2)
    axes.set_title(title, fontsize=8)
    axes.axhline(0, color="0.85", lw=0.6, zorder=0)
    axes.axvline(0, color="0.85", lw=0.6, zorder=0)
    axes.tick_params(length=2, width=0.5)


def small_png(figure: Figure) -> bytes:
    """The figure with a palette, and without the metadata that matplotlib writes."""
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", metadata={"Software": None})
    image = Image.open(whole).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def write_pictures(folder: Path, methods: list[MergeMethod]) -> None:
    """One file for each method; pictures of methods that are no more are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for method in methods:
        (folder / f"{method.name}.png").write_bytes(picture(method))
    names = {method.name for method in methods}
    for path in folder.glob("*.png"):
        if path.stem not in names:
            path.unlink()

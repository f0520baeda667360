"""Two checkpoints side by side: tensors, norms, cosines, and everything beside the weights.

Tensors are read by blocks in several threads, as a merge reads them, and nothing but sums is held.
With a base the cosines are those of the two task vectors, else those of the weights themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.name_alignment import named_alike
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.measures.measure import LEAF, total
from merge_ops.progress import Progress
from merge_ops.provenance.plain_data import to_plain
from merge_ops.provenance.settings_difference import SettingDifference, compare_settings
from merge_ops.stream.looking import Look, look_through, tensor_to_see
from merge_ops.stream.settings import StreamSettings

SAME = "same"
_PIECE = 1 << 20  # bytes of a tensor of whole numbers that are compared at a time


@dataclass(frozen=True)
class TensorDifference:
    """A tensor difference says how far a tensor of `b` is from the same tensor of `a`.

    `norm_a` and `norm_b` are L2 norms, of the task vectors where there is a base; `cosine` is that
    of these two, None where one of them is zero. `norm` and `largest` are of b − a, `differing`
    counts the entries with another value. Where a tensor holds NaN or infinity, `finite` is false
    and the numbers are those of floating point. Of whole numbers only `differing` is known, in
    bytes, and the others are None.
    """

    name: str
    stack: str
    layer: int | None
    count: int
    norm_a: float | None
    norm_b: float | None
    cosine: float | None
    norm: float | None
    largest: float | None
    differing: int
    finite: bool = True

    @property
    def relative(self) -> float | None:
        """Return ‖b − a‖ / ‖a‖, None where it is not known."""
        return self.norm / self.norm_a if self.norm is not None and self.norm_a else None


@dataclass(frozen=True)
class LayerDifference:
    """A layer difference is that of all float tensors of a layer; outside layers `layer` is None.

    Its numbers are those of a tensor difference.
    """

    stack: str
    layer: int | None
    count: int
    norm_a: float
    norm_b: float
    cosine: float | None
    norm: float
    differing: int


@dataclass(frozen=True)
class CheckpointDifference:
    """A checkpoint difference holds everything in which checkpoint `b` is not `a`.

    `only_in_a` and `only_in_b` are names of tensors, `shapes` and `dtypes` hold (name, a's, b's).
    `tensors` has every tensor that both have in one shape, equal ones too. `settings` are config,
    tokenizer, chat template and the like.
    """

    a: str
    b: str
    base: str | None
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    dtypes: tuple[tuple[str, str, str], ...]
    tensors: tuple[TensorDifference, ...]
    layers: tuple[LayerDifference, ...]
    settings: tuple[SettingDifference, ...]

    @property
    def same_tensors(self) -> bool:
        """Return whether all tensors are there in both, with the same shapes and values."""
        other = self.only_in_a or self.only_in_b or self.shapes
        return not other and not any(each.differing for each in self.tensors)

    @property
    def same(self) -> bool:
        """Return whether nothing differs, dtypes and settings included."""
        return self.same_tensors and not self.dtypes and not self.settings

    @property
    def whole(self) -> LayerDifference | None:
        """Return the difference over all float tensors; None where there is none."""
        return _layer("", None, self.tensors)

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain data; a number that is not finite is None."""
        whole = self.whole
        document = {
            **dataclasses.asdict(self),
            "whole": dataclasses.asdict(whole) if whole else None,
            SAME: self.same,
        }
        return to_plain(document)


def compare_checkpoints(
    a: Checkpoint,
    b: Checkpoint,
    base: Checkpoint | None = None,
    settings: StreamSettings | None = None,
    progress: Progress | None = None,
) -> CheckpointDifference:
    """Compare two checkpoints and return every difference.

    Names that differ by the prefix of the body alone are the same tensor, and so is a head that is
    tied to the embedding. Raises CheckpointError where a file cannot be read, SettingsError where
    the bound of memory holds no block.
    """
    (b,) = named_alike(a, [b])
    if base is not None:
        (base,) = named_alike(a, [base])
    pairs, only = _pairs(a, b)
    shapes = [
        (name, ours.shape, theirs.shape)
        for name, (ours, theirs) in pairs.items()
        if ours.shape != theirs.shape
    ]
    dtypes = [
        (name, ours.dtype, theirs.dtype)
        for name, (ours, theirs) in pairs.items()
        if ours.dtype != theirs.dtype
    ]
    alike = {name: pair for name, pair in pairs.items() if pair[0].shape == pair[1].shape}
    tensors = _compare_all(alike, base, settings, progress)
    return CheckpointDifference(
        a.name,
        b.name,
        base.name if base else None,
        tuple(only[0]),
        tuple(only[1]),
        tuple(shapes),
        tuple(dtypes),
        tuple(tensors),
        tuple(_layers(tensors)),
        tuple(compare_settings(a, b)),
    )


Pairs = dict[str, tuple[TensorSource, TensorSource]]


def _pairs(a: Checkpoint, b: Checkpoint) -> tuple[Pairs, tuple[list[str], list[str]]]:
    """The tensors of both by name, in natural order; and those that one of them alone has."""
    skipped = {*excluded(a), *excluded(b)}
    names = [name for name in {**a.tensors, **b.tensors} if name not in skipped]
    pairs: Pairs = {}
    only: tuple[list[str], list[str]] = [], []
    for name in sorted(names, key=natural_key):
        ours, theirs = find_source(a, name), find_source(b, name)
        if ours is None or theirs is None:
            only[ours is None].append(name)
        else:
            pairs[name] = ours, theirs
    return pairs, only


def _compare_all(
    pairs: Pairs,
    base: Checkpoint | None,
    settings: StreamSettings | None,
    progress: Progress | None,
) -> list[TensorDifference]:
    """Every pair of one shape, in order."""
    floats = {
        name: pair for name, pair in pairs.items() if all(e.dtype in FLOAT_DTYPES for e in pair)
    }
    tensors = [
        tensor_to_see(name, pair, _origin(base, name, pair[0])) for name, pair in floats.items()
    ]
    found: dict[str, TensorDifference] = {}
    seen = look_through(tensors, _observe, settings, progress)
    for name, parts in zip(floats, seen, strict=True):
        found[name] = _tensor(name, floats[name][0], parts)
    for name, (ours, theirs) in pairs.items():
        if name not in found:
            found[name] = _whole_numbers(name, ours, theirs)
    return [found[name] for name in pairs]


def _origin(base: Checkpoint | None, name: str, like: TensorSource) -> TensorSource | None:
    """The base's tensor, where it has one of this shape to be subtracted."""
    source = find_source(base, name) if base is not None else None
    fits = source is not None and source.shape == like.shape and source.dtype in FLOAT_DTYPES
    return source if fits and not (source and is_buffer(name, source)) else None


_Seen = tuple[tuple[Any, Any, Any, Any], float, int]


def _observe(look: Look) -> _Seen:
    """Leaf sums of a², b², ab and (b − a)²; the largest |b − a|; how many entries differ."""
    ours, theirs = look.inputs
    arithmetic = look.arithmetic
    sums = [
        arithmetic.leaf_sums(first, second, LEAF)
        for first, second in ((ours, ours), (theirs, theirs), (ours, theirs))
    ]
    change: Any = arithmetic.on_host(theirs) - arithmetic.on_host(ours)
    squares = arithmetic.leaf_sums(arithmetic.from_host(change), arithmetic.from_host(change), LEAF)
    largest = float(np.abs(change).max()) if len(change) else 0.0
    return (sums[0], sums[1], sums[2], squares), largest, int(np.count_nonzero(change))


def _tensor(name: str, source: TensorSource, parts: Sequence[_Seen]) -> TensorDifference:
    squares_a, squares_b, product, squares = (
        total(part[0][number] for part in parts) for number in range(4)
    )
    both = squares_a * squares_b  # of equal tensors the root of it is their square, to the bit
    usual = 0.0 < both < math.inf
    lengths = math.sqrt(both) if usual else math.sqrt(squares_a) * math.sqrt(squares_b)
    stack, layer = layer_of(name) or ("", None)
    return TensorDifference(
        name,
        stack,
        layer,
        math.prod(source.shape),
        math.sqrt(squares_a) if squares_a >= 0 else math.nan,
        math.sqrt(squares_b) if squares_b >= 0 else math.nan,
        _bounded(product / lengths) if lengths else None,
        math.sqrt(squares) if squares >= 0 else math.nan,
        float(np.max([part[1] for part in parts])) if parts else 0.0,
        sum(part[2] for part in parts),
        math.isfinite(squares_a) and math.isfinite(squares_b),
    )


def _bounded(cosine: float) -> float:
    """A cosine within [−1, 1], where rounding left it outside; NaN stays."""
    return min(1.0, max(-1.0, cosine)) if cosine == cosine else cosine


def _whole_numbers(name: str, ours: TensorSource, theirs: TensorSource) -> TensorDifference:
    """Tensors that are no floats: how many of their bytes differ, or all where the dtypes do."""
    stack, layer = layer_of(name) or ("", None)
    count = math.prod(ours.shape)
    differing = count
    if ours.dtype == theirs.dtype and isinstance(ours, Stored) and isinstance(theirs, Stored):
        differing = sum(
            int(np.count_nonzero(_bytes(ours, at, size) != _bytes(theirs, at, size)))
            for at in range(0, ours.nbytes, _PIECE)
            for size in [min(_PIECE, ours.nbytes - at)]
        )
    numbers = (None, None, None, None, None)
    return TensorDifference(name, stack, layer, count, *numbers, differing)


def _bytes(stored: Stored, start: int, size: int) -> Any:
    raw = bytearray(size)
    entry = stored.entry
    stored.checkpoint.source.read_into(entry.file, entry.offset + start, memoryview(raw))
    return np.frombuffer(raw, dtype=np.uint8)


def _layers(tensors: Iterable[TensorDifference]) -> list[LayerDifference]:
    """The layers in order, with what lies outside of them in front."""
    parts: dict[tuple[str, int | None], list[TensorDifference]] = {}
    for each in tensors:
        parts.setdefault((each.stack, each.layer), []).append(each)
    ordered = sorted(parts, key=lambda place: (place[0], -1 if place[1] is None else place[1]))
    found = [_layer(*place, parts[place]) for place in ordered]
    return [each for each in found if each is not None]


def _layer(
    stack: str, layer: int | None, tensors: Sequence[TensorDifference]
) -> LayerDifference | None:
    """Tensors taken together as one vector; None where none of them is of floats."""
    floats = [each for each in tensors if each.norm is not None]
    if not floats:
        return None
    ours, theirs, change = (
        math.fsum((getattr(each, name) or 0.0) ** 2 for each in floats)
        for name in ("norm_a", "norm_b", "norm")
    )
    product = math.fsum(
        (each.cosine or 0.0) * (each.norm_a or 0.0) * (each.norm_b or 0.0) for each in floats
    )
    lengths = math.sqrt(ours) * math.sqrt(theirs)
    return LayerDifference(
        stack,
        layer,
        sum(each.count for each in floats),
        math.sqrt(ours),
        math.sqrt(theirs),
        _bounded(product / lengths) if lengths else None,
        math.sqrt(change),
        sum(each.differing for each in floats),
    )

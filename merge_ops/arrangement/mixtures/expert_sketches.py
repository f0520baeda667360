"""Sketches of moe_experts: from one read of a layer, what tells experts and neurons apart.

A neuron is its rows of gate and up and its column of down. Its sketch are 32 sums of each over the
hidden size, with signs that are drawn once (Achlioptas 2003): distances between sketches are those
between neurons, up to a few percent for sums over many. So a layer of both models is compared from
a hundredth of its numbers, and no more than a block of rows is held besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.arrangement.mixtures.expert_layers import DOWN, GATE, UP, ExpertLayer
from merge_ops.checkpoints.checkpoint import Checkpoint, Fetch, TensorSource, source_of
from merge_ops.measures.randomness import stream_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

WIDTH = 32  # sums for each of gate, up and down
BLOCK = 1 << 22  # numbers that are read at a time
SMALL = 1e-6
"""A feature that varies less than this share of its size between moe_experts tells none apart."""


@dataclass(frozen=True)
class LayerSketch:
    """A layer sketch tells what the moe_experts E of one layer of one model are like.

    `neurons` has shape (E, intermediate, 3 WIDTH). `router` are the rows, (E, hidden). `features`
    are those that no order of neurons changes, each (E, hidden): sums and squares over neurons.
    """

    neurons: Floats
    router: Floats
    features: tuple[Doubles, ...]

    def alike(self, other: LayerSketch) -> Doubles:
        """Return how much each moe_expert is like each of another model's, (E, E), at most 2.

        The cosine of router rows, and the mean cosine of the features; of both the mean over
        moe_experts is taken away first, which says nothing about any of them.
        """
        found = _cosines(self.router.astype(np.float64), other.router.astype(np.float64))
        each = [_cosines(a, b) for a, b in zip(self.features, other.features, strict=True)]
        return found + sum(each) / len(each)


def sketched(model: Checkpoint, layer: ExpertLayer, fetch: Fetch) -> LayerSketch:
    """Read the moe_experts of a layer once, and its router, and return their sketch."""
    neurons: list[Floats] = []
    features: list[list[Doubles]] = []
    for number in range(layer.experts):
        of_parts = [
            _sketch(_source(model, layer.names[number, part, False]), part, fetch)
            for part in (GATE, UP, DOWN)
        ]
        neurons.append(np.concatenate([each[0] for each in of_parts], axis=1))
        features.append([feature for each in of_parts for feature in each[1:]])
    router = _source(model, layer.router)
    rows = np.concatenate([block for _, block in _blocks(router, fetch)])
    gathered = tuple(np.stack(each) for each in zip(*features, strict=True))
    return LayerSketch(np.stack(neurons), rows, gathered)


def _sketch(source: TensorSource, part: int, fetch: Fetch) -> tuple[Floats, Doubles, Doubles]:
    """The sketch of each neuron, (intermediate, WIDTH), and sums and sizes over neurons."""
    if part != DOWN:
        rows: list[Floats] = []
        total, squares = np.zeros(source.shape[1]), np.zeros(source.shape[1])
        for _, block in _blocks(source, fetch):
            rows.append(block @ _signs(part, source.shape[1]))
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.einsum("ij,ij->j", block, block, dtype=np.float64)
        return np.concatenate(rows), total, np.sqrt(squares)
    hidden, inner = source.shape
    found = np.zeros((inner, WIDTH), dtype=np.float32)
    total, squares = np.zeros(hidden), np.zeros(hidden)
    for start, block in _blocks(source, fetch):
        here = slice(start, start + len(block))
        found += block.T @ _signs(part, hidden)[here]
        total[here] = block.sum(axis=1, dtype=np.float64)
        squares[here] = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return found, total, np.sqrt(squares)


@cache
def _signs(part: int, hidden: int) -> Floats:
    """The signs of one part, (hidden, WIDTH), the same on every machine."""
    low, high = stream_key(0, "moe_experts", str(part))
    words = np.random.Philox(key=low | high << 64).random_raw(hidden)
    bits = (words[:, None] >> np.arange(WIDTH, dtype=np.uint64)) & np.uint64(1)
    return bits.astype(np.float32) * 2 - 1


def _source(model: Checkpoint, name: str) -> TensorSource:
    found = source_of(model, name)
    assert found is not None  # names come from the model's own tensors
    return found


def _blocks(source: TensorSource, fetch: Fetch) -> Iterator[tuple[int, Floats]]:
    """Blocks of whole rows of a matrix, each with its first row."""
    import torch

    rows, width = source.shape
    together = max(1, BLOCK // width)
    for start in range(0, rows, together):
        count = min(together, rows - start)
        values = torch.empty(count * width, dtype=torch.float32)
        source.fill(fetch, start * width, values)
        yield start, values.numpy().reshape(count, width)


def _cosines(ours: Doubles, theirs: Doubles) -> Doubles:
    """Cosines of rows, (E, E), from each of which the mean row is taken away."""
    first, second = (_from_the_mean(each) for each in (ours, theirs))
    return first @ second.T


def _from_the_mean(rows: Doubles) -> Doubles:
    away = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(away, axis=1)
    usual = np.linalg.norm(rows, axis=1).max(initial=0.0)
    told = lengths > SMALL * usual
    return np.where(told, 1.0 / np.where(told, lengths, 1.0), 0.0)[:, None] * away

"""Gates of routers from the base's embeddings alone: mergekit-moe's `cheap_embed`, to the bit.

A row is the sum of the embeddings of all tokens of an expert's prompts, divided by its length, less
that of the negative prompts, divided by its length again; it is the same in every layer. mergekit
(LGPL; reimplemented from its formula) multiplies one-hot vectors by the whole embedding; here the
rows of the tokens that occur are read, and no others.

Sums run over padded prompts in torch's order, in which mergekit adds (`_sum_of_rows`, `_length`),
so that no process needs torch for them, and every machine has the same bits. torch has these on any
x86 processor where the hidden size is a multiple of 32, with any number of threads that was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, source_of
from merge_ops.errors import Fault, StatisticsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

TokenLists = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
"""The tokens of the positive and of the negative prompts of one moe_expert, prompt by prompt."""
EMBEDDING = "model.embed_tokens.weight"
SHORTEST = np.float32(1e-8)
"""A row that is shorter is not made longer: its prompts cancel out."""
_SIZES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LANES = 8  # of torch's vectors of float32, on every x86 processor
_COLUMNS = 4 * _LANES  # that torch adds together, four vectors at a time
_LEVELS, _ROWS_OF_RUN = 4, 4  # partial sums of a sum, and the fewest rows of one as a power of two


def embed_gates(base: Checkpoint, tokens: Sequence[TokenLists]) -> dict[int, Floats]:
    """Return the rows of each layer of `base`, (moe_experts, hidden), from tokens of prompts.

    Raises StatisticsError for a model without such an embedding, or without a row for a token.
    """
    embedding = _Embedding(base)
    rows: list[Floats] = []
    for positive, negative in tokens:
        row = _direction(embedding.sum_of(positive))
        if negative:
            row = row - _direction(embedding.sum_of(negative))
        rows.append(_direction(row))
    stacked = np.stack(rows)
    return {layer: stacked.copy() for layer in range(int(base.config["num_hidden_layers"]))}


class _Embedding:
    """The embedding of a model, of which single rows are read."""

    def __init__(self, base: Checkpoint) -> None:
        found = source_of(base, EMBEDDING) if EMBEDDING in base.tensors else None
        if not isinstance(found, Stored) or found.dtype not in _SIZES or len(found.shape) != 2:
            problem = f"has no {EMBEDDING} of floats that lies in a file as it is; save the base by"
            raise StatisticsError("gates", [Fault(base.name, f"{problem} transformers")])
        self._stored = found

    def sum_of(self, prompts: Sequence[Sequence[int]]) -> Floats:
        """The sum of the rows of all prompts' tokens, (hidden,)."""
        width = self._stored.shape[1]
        longest = max(map(len, prompts))
        sums: list[Floats] = []
        for tokens in prompts:
            values = np.zeros((longest, width), dtype=np.float32)  # pads stand to the left
            values[longest - len(tokens) :] = self._rows(tokens)
            sums.append(_sum_of_rows(values))
        return _sum_of_rows(np.stack(sums))

    def _rows(self, tokens: Sequence[int]) -> Floats:
        """The rows of tokens, (tokens, hidden)."""
        rows, width = self._stored.shape
        if not 0 <= min(tokens) <= max(tokens) < rows:
            problem = f"has {rows} rows in {EMBEDDING}, and none for token {max(tokens)} of a"
            advice = "prompt; its tokenizer is another model's"
            raise StatisticsError("gates", [Fault(self._stored.model, f"{problem} {advice}")])
        read = {token: self._row(token, width) for token in sorted(set(tokens))}
        return np.stack([read[token] for token in tokens])

    def _row(self, token: int, width: int) -> Floats:
        stored, kind = self._stored, np.dtype(_SIZES[self._stored.dtype])
        buffer = bytearray(width * kind.itemsize)
        offset = stored.entry.offset + token * len(buffer)
        stored.checkpoint.source.read_into(stored.entry.file, offset, memoryview(buffer))
        values = np.frombuffer(buffer, kind)
        if stored.dtype == "BF16":
            values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):  # of float64; what follows tells that it is not finite
            row = values.astype(np.float32)
        return row + np.float32(0)  # a product with a one-hot vector has no −0


def _direction(values: Floats) -> Floats:
    """Values divided by their length, (n,)."""
    return values / np.maximum(_length(values), SHORTEST)


def _sum_of_rows(values: Floats) -> Floats:
    """The sum over the first axis, (rows, columns) to (columns,), as torch adds in float32.

    Columns that fill four vectors are summed from the first row to the last (`_in_runs`); of the
    others every fourth row goes to one of four sums, which are added in the end.
    """
    columns = values.shape[1]
    block = _COLUMNS if columns >= _LANES else _COLUMNS // _LANES
    whole = columns - columns % block
    fours, rest = len(values) // 4 * 4, values[:, whole:]
    parts = [_in_runs(rest[first:fours:4]) for first in range(4)]
    for row in rest[fours:]:
        parts[0] = parts[0] + row
    others = ((parts[0] + parts[1]) + parts[2]) + parts[3]
    return np.concatenate([_in_runs(values[:, :whole]), others])


def _in_runs(values: Floats) -> Floats:
    """The sum over the first axis in runs of 16 or more rows, whose sums are added level by level.

    As in torch's `cascade_sum`, by which errors of long sums stay small.
    """
    count = len(values)
    power = max(_ROWS_OF_RUN, max(0, count - 1).bit_length() // _LEVELS)
    run = 1 << power
    zeros = np.zeros(values.shape[1], dtype=np.float32)
    levels = [zeros] * _LEVELS
    done = 0
    while done + run <= count:
        for row in values[done : done + run]:
            levels[0] = levels[0] + row
        done += run
        for level in range(1, _LEVELS):
            levels[level] = levels[level] + levels[level - 1]
            levels[level - 1] = zeros
            if done & ((run - 1) << (level * power)):
                break
    for row in values[done:]:
        levels[0] = levels[0] + row
    return ((levels[0] + levels[1]) + levels[2]) + levels[3]


def _length(values: Floats) -> np.float32:
    """The Euclidean length of (n,): one sum a lane, the lanes in their order, then what is left."""
    whole = len(values) - len(values) % _LANES
    lanes = np.zeros(_LANES, dtype=np.float32)
    for vector in values[:whole].reshape(-1, _LANES):
        lanes = lanes + vector * vector
    total = lanes[0]
    for square in [*lanes[1:], *(values[whole:] * values[whole:])]:
        total = np.float32(total + square)
    return np.float32(np.sqrt(total))

"""The tensors of a distributed checkpoint written as one safetensors file, piece by piece."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from math import prod
from pathlib import Path
from typing import IO

from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.checkpoints.pickles.dcp_index import CutTensor, Piece
from merge_ops.checkpoints.pickles.pickle_index import IndexFaultError

PIECE = 8 << 20  # bytes that are held at a time


def write_cut_tensors(
    folder: Path, target: IO[bytes], tensors: Mapping[str, CutTensor], order: Sequence[str], at: int
) -> None:
    """Write tensors in an order into `target`, from byte `at` on; their pieces lie in `folder`.

    A few MiB are held at a time, whatever the sizes. Raises IndexFaultError where a file became
    shorter meanwhile.
    """
    with ExitStack() as stack:
        files: dict[str, int] = {}
        for name in order:
            tensor = tensors[name]
            for piece in tensor.pieces:
                if piece.file not in files:
                    opened = stack.enter_context((folder / piece.file).open("rb"))
                    files[piece.file] = opened.fileno()
                _write_piece(files[piece.file], target.fileno(), tensor, piece, at)
            at += tensor.nbytes
        os.ftruncate(target.fileno(), at)


def _write_piece(source: int, target: int, tensor: CutTensor, piece: Piece, at: int) -> None:
    """Write one box of a tensor, run by run: a run lies in one piece in both files."""
    size, box = ITEM_SIZES[tensor.dtype], piece.stored.shape
    if not prod(box):
        return
    axis = len(box)  # from it on the box is as long as the tensor
    while axis and box[axis - 1] == tensor.shape[axis - 1]:
        axis -= 1
    outer = max(0, axis - 1)
    run = prod(box[outer:]) * size
    strides = [prod(tensor.shape[each + 1 :]) for each in range(len(box))]
    start = piece.stored.storage.offset + piece.stored.start * size
    held, held_from, end = b"", start, start + piece.stored.nbytes
    for number, place in enumerate(product(*(range(length) for length in box[:outer]))):
        where = [*place, *([0] * (len(box) - outer))]
        into = sum((p + o) * s for p, o, s in zip(where, piece.offsets, strides, strict=True))
        into, come_from, left = at + into * size, start + number * run, run
        while left:
            if not held_from <= come_from < held_from + len(held):
                held, held_from = _read(source, come_from, min(PIECE, end - come_from)), come_from
            data = held[come_from - held_from : come_from - held_from + left]
            done = os.pwrite(target, data, into)
            into, come_from, left = into + done, come_from + done, left - done


def _read(source: int, start: int, count: int) -> bytes:
    data = os.pread(source, count, start)
    if not data:
        raise IndexFaultError("it became shorter while it was read")
    return data

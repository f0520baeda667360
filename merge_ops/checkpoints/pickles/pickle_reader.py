"""What the child does that reads pickles: headers of the safetensors files to be, or those files.

A tensor's bytes are copied from where the index says that they lie, a few MiB at a time, whatever
its size; no torch is needed. The files are, byte for byte, what safetensors' `save_file` writes.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from merge_ops.checkpoints.header import ITEM_SIZES, MAX_HEADER
from merge_ops.checkpoints.pickles.dcp_folders import METADATA
from merge_ops.checkpoints.pickles.dcp_index import CutTensor, read_cut_tensors
from merge_ops.checkpoints.pickles.dcp_writer import write_cut_tensors
from merge_ops.checkpoints.pickles.pickle_index import IndexFaultError, PickledTensor, read_index

PIECE = 8 << 20  # bytes that are held at a time
_ORDER = (
    "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E5M2FNUZ",
    "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL",
)  # fmt: skip
_RANKS = {dtype: rank for rank, dtype in enumerate(_ORDER)}  # as safetensors orders tensors
_DAMAGED = (
    pickle.UnpicklingError, ValueError, EOFError, zipfile.BadZipFile, LookupError, TypeError,
    AttributeError, ArithmeticError, struct.error, RecursionError, NotImplementedError,
)  # fmt: skip


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Return the header that a pickled file's safetensors file has, which is written `into` a path.

    A file that is refused gives `refused`, and why.
    """
    path = Path(request["file"])
    try:
        if path.name == METADATA:
            return {"header": _of_cut_tensors(path, request.get("into")).decode()}
        tensors = read_index(path)
        header = header_of(tensors)
        if request.get("into"):
            with path.open("rb") as source, Path(request["into"]).open("wb") as target:
                _write(source, target, header, tensors)
    except IndexFaultError as error:
        return {"refused": str(error)}
    except _DAMAGED as error:
        told = " ".join(str(error).split())
        return {
            "refused": f"it is damaged, or no pickle of tensors ({type(error).__name__}: {told})"
        }
    return {"header": header.decode()}


def _of_cut_tensors(metadata: Path, into: str | None) -> bytes:
    """The header of a distributed checkpoint, which is written `into` a path where one is named."""
    tensors = read_cut_tensors(metadata)
    header = header_of(tensors)
    if into:
        with Path(into).open("wb") as target:
            target.write(len(header).to_bytes(8, "little") + header)
            target.flush()
            order = _ordered(tensors)
            write_cut_tensors(metadata.parent, target, tensors, order, 8 + len(header))
    return header


def header_of(tensors: Mapping[str, PickledTensor] | Mapping[str, CutTensor]) -> bytes:
    """Return the JSON of a safetensors header, padded as `save_file` pads it."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in _ordered(tensors):
        tensor = tensors[name]
        end = position + tensor.nbytes
        shape = list(tensor.shape)
        table[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER:
        raise IndexFaultError(f"the names and shapes of its tensors take {len(text):,} bytes")
    return text + b" " * (-len(text) % 8)


def _ordered(tensors: Mapping[str, PickledTensor] | Mapping[str, CutTensor]) -> list[str]:
    if "__metadata__" in tensors:
        raise IndexFaultError("a tensor is called '__metadata__', which safetensors cannot hold")
    return sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name.encode()))


def _write(
    source: IO[bytes], target: IO[bytes], header: bytes, tensors: Mapping[str, PickledTensor]
) -> None:
    target.write(len(header).to_bytes(8, "little") + header)
    for name in _ordered(tensors):
        tensor = tensors[name]
        if tensor.is_contiguous:
            start = tensor.storage.offset + tensor.start * ITEM_SIZES[tensor.dtype]
            _copy(source, target, start, tensor.nbytes)
        elif tensor.nbytes:
            _gather(source, target, tensor)


def _copy(source: IO[bytes], target: IO[bytes], start: int, nbytes: int) -> None:
    done = 0
    while done < nbytes:
        data = os.pread(source.fileno(), min(PIECE, nbytes - done), start + done)
        if not data:
            raise IndexFaultError("it became shorter while it was read")
        target.write(data)
        done += len(data)


def _gather(source: IO[bytes], target: IO[bytes], tensor: PickledTensor) -> None:
    """Copy a tensor whose elements lie elsewhere than in order: a transposed or expanded one."""
    import numpy as np

    size = ITEM_SIZES[tensor.dtype]
    whole = np.memmap(source, np.uint8, "r", tensor.storage.offset, (tensor.storage.nbytes,))
    steps = tuple(step * size for step in tensor.strides)
    view = np.ndarray(tensor.shape, f"V{size}", whole, tensor.start * size, steps)
    _write_rows(target, view)


def _write_rows(target: IO[bytes], view: Any) -> None:
    if view.nbytes <= PIECE or not view.ndim:
        target.write(view.tobytes())
        return
    row = view.nbytes // len(view)
    if row > PIECE:
        for each in view:
            _write_rows(target, each)
        return
    many = PIECE // row
    for start in range(0, len(view), many):
        target.write(view[start : start + many].tobytes())

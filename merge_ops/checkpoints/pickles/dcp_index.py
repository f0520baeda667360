"""The index of a PyTorch distributed checkpoint: `.metadata`, and tensors cut among `*.distcp`.

`.metadata` is a pickle, and a pickle is a program: this reads it in a limited child
(pickle_reader.py) with an unpickler that finds stand-ins for the few classes that DCP writes, and
nothing else. Each piece of a tensor is what torch.save wrote, at a range of a `.distcp` file; of it
too the index alone is read. What the metadata claims is compared with what the pieces hold.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from merge_ops.checkpoints.header import ITEM_SIZES, MAX_DIMENSIONS
from merge_ops.checkpoints.pickles.pickle_index import (
    DTYPES,
    WRAPPERS,
    IndexFaultError,
    PickledTensor,
    placed,
    zipped,
)

_OPTIMIZERS = ("optim", "optimizer", "optimizers")
_IN_METADATA = "torch.distributed.checkpoint.metadata."
_RECORDS = frozenset({
    *(_IN_METADATA + name for name in (
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
        "BytesStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    )),
    "torch.distributed.checkpoint.filesystem._StorageInfo", "torch.serialization._get_layout",
    "pathlib.PosixPath", "pathlib.PurePosixPath",
})  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A piece is a box of a tensor: where it begins, and the stored tensor that it is, in a file.

    The place of the stored tensor's storage counts from the file's beginning.
    """

    offsets: tuple[int, ...]
    file: str
    stored: PickledTensor


@dataclass(frozen=True)
class CutTensor:
    """A cut tensor is one whose pieces, laid side by side, are all of it, once."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Return the bytes of the whole tensor."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]


def read_cut_tensors(metadata: Path) -> dict[str, CutTensor]:
    """Return the model's tensors of a distributed checkpoint by name, each with its pieces' places.

    `metadata` is its `.metadata` file. Raises IndexFaultError where it asks for more than DCP's
    classes, has no single table of weights, or claims what the files beside it do not hold; and
    what Python's unpickler raises for a damaged one.
    """
    with metadata.open("rb") as file:
        content = _Unpickler(file).load()
    table = _state(content, "Metadata")
    entries = _mapping(table.get("state_dict_metadata"), "state_dict_metadata")
    storage = _mapping(table.get("storage_data"), "storage_data")
    places: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for index, info in storage.items():
        at = _state(index, "MetadataIndex")
        places[at.get("fqn"), at.get("offset")] = _state(info, "_StorageInfo")
    paths = table.get("planner_data")
    names = _names(entries, cast("Mapping[Any, Any]", paths if isinstance(paths, dict) else {}))
    files = _Files(metadata.parent)
    try:
        return {name: _tensor(key, entries[key], places, files) for name, key in names.items()}
    finally:
        files.close()


class _Record:
    """What the unpickler makes instead of DCP's objects: it keeps its state, and does nothing."""

    what = ""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Named(_Record):
    """A dtype or another constant of torch."""


class _Unpickler(pickle.Unpickler):
    """Finds stand-ins of DCP's classes, and refuses every other name."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return what stands for a name of the pickle, or raise IndexFaultError."""
        whole = f"{module_name}.{global_name}"
        if whole == "torch.Size":
            return tuple
        if whole in _RECORDS:
            return type(global_name, (_Record,), {"what": global_name})
        if module_name == "torch" and global_name in DTYPES:
            named = _Named()
            named.state = DTYPES[global_name]
            return named
        if module_name == "torch" and global_name.isidentifier():
            return _Named()  # of a tensor of no dtype that is known here; never called
        raise IndexFaultError(f"it wants to call {whole[:200]}, and an index has no need of that")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse storages: an index has none."""
        raise IndexFaultError("it names storages, and an index has none")


def _state(value: object, what: str) -> Mapping[str, Any]:
    state = value.state if isinstance(value, _Record) and value.what == what else None
    if not isinstance(state, dict):
        raise IndexFaultError(f"it is no index of a distributed checkpoint (no {what})")
    return cast("Mapping[str, Any]", state)


def _mapping(value: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise IndexFaultError(f"its '{what}' is no table")
    return cast("Mapping[Any, Any]", value)


def _names(entries: Mapping[Any, Any], paths: Mapping[Any, Any]) -> dict[str, str]:
    """The model's tensors: the name of each in the model, and its key in the checkpoint.

    A state dict is saved flat: `planner_data` has where each key stood. The model's table is the
    only one that holds tensors, or the one that stands below a name such as `model`.
    """
    tables: dict[tuple[str, ...], dict[str, str]] = {}
    for key, entry in entries.items():
        if not isinstance(key, str) or not isinstance(entry, _Record):
            raise IndexFaultError(f"its entry {str(key)[:200]!r} is none of a checkpoint")
        if entry.what != "TensorStorageMetadata":
            continue  # numbers and texts that a trainer keeps
        path = paths.get(key, (key,))
        parts = cast("tuple[object, ...]", path) if isinstance(path, tuple) else ()
        if not parts or not all(isinstance(each, str) for each in parts):
            if _is_of_optimizer(key):
                continue
            raise IndexFaultError(f"the place of {key[:200]!r} in the model is not known")
        texts = cast("tuple[str, ...]", parts)
        if len(texts) == 1:  # saved flat: the key says all that is known
            texts = (*_wrapper(key), key.removeprefix("".join(f"{e}." for e in _wrapper(key))))
        tables.setdefault(texts[:-1], {})[texts[-1]] = key
    tables = {path: table for path, table in tables.items() if not set(path) & {*_OPTIMIZERS}}
    wrapped = [path for path in tables if path and path[-1] in WRAPPERS]
    chosen = wrapped if len(wrapped) == 1 else list(tables)
    if len(chosen) != 1:
        told = ", ".join(".".join(path) or "the top" for path in sorted(tables)) or "none"
        raise IndexFaultError(f"it has no single table of a model's weights (tables: {told[:300]})")
    return tables[chosen[0]]


def _wrapper(key: str) -> tuple[str, ...]:
    """What a flat key begins with where it is an optimizer's; a model's is its name as it is."""
    first = key.partition(".")[0]
    return (first,) if first in _OPTIMIZERS else ()


def _is_of_optimizer(key: str) -> bool:
    return key.partition(".")[0] in _OPTIMIZERS


class _Files:
    """The `.distcp` files of one checkpoint, each opened once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[IO[bytes], int]] = {}

    def part(self, name: object, offset: object, length: object) -> _Part:
        """Return a range of a file as a file. Raises IndexFaultError where it is not there."""
        plain = isinstance(name, str) and PurePosixPath(name).name == name and "\\" not in name
        if not plain or not isinstance(name, str) or not name.endswith(".distcp"):
            raise IndexFaultError(
                f"it names {str(name)[:200]!r}, which is no .distcp file beside it"
            )
        if name not in self._open:
            path = self._folder / name
            try:
                self._open[name] = (path.open("rb"), path.stat().st_size)
            except FileNotFoundError:
                raise IndexFaultError(f"{name} is not there; copy the whole checkpoint") from None
        file, size = self._open[name]
        sound = type(offset) is int and type(length) is int and offset >= 0 and length > 0
        if not sound or cast(int, offset) + cast(int, length) > size:
            raise IndexFaultError(
                f"{name} is cut off: it has {size:,} bytes, and more are promised"
            )
        return _Part(file, cast(int, offset), cast(int, length))

    def close(self) -> None:
        """Close all files."""
        for file, _ in self._open.values():
            file.close()


class _Part(io.RawIOBase):
    """A range of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self.start, self.length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.length - self._at))
        self._file.seek(self.start + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _tensor(
    key: str, entry: _Record, places: Mapping[tuple[object, ...], Mapping[str, Any]], files: _Files
) -> CutTensor:
    """One tensor, once its pieces are all there and are what the metadata says."""
    state, shown = _state(entry, "TensorStorageMetadata"), key[:200]
    properties = getattr(state.get("properties"), "state", None)
    first = cast("Any", properties[0]) if isinstance(properties, tuple) and properties else None
    if isinstance(properties, dict):
        first = cast("Mapping[str, Any]", properties).get("dtype")
    dtype = first.state if isinstance(first, _Named) else None
    shape = _lengths(state.get("size"))
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES or shape is None:
        raise IndexFaultError(f"{shown!r} has a dtype or a shape that is not known here")
    chunks = state.get("chunks")
    pieces: list[Piece] = []
    for chunk in cast("list[Any]", chunks) if isinstance(chunks, list) else ():
        box = _state(chunk, "ChunkStorageMetadata")
        offsets, sizes = _lengths(box.get("offsets")), _lengths(box.get("sizes"))
        info = places.get((key, offsets))
        if offsets is None or sizes is None or info is None:
            raise IndexFaultError(f"a piece of {shown!r} has no place in the files")
        if info.get("transform_descriptors"):
            raise IndexFaultError(f"{shown!r} is stored compressed or encrypted; save it plainly")
        name = info.get("relative_path")
        part = files.part(name, info.get("offset"), info.get("length"))
        stored = _zipped_tensor(cast("IO[bytes]", part), part.length, part.start)
        if (stored.dtype, stored.shape) != (dtype, sizes) or not stored.is_contiguous:
            raise IndexFaultError(f"a piece of {shown!r} is another tensor than the index says")
        pieces.append(Piece(offsets, str(name), stored))
    if not _tiles(shape, pieces):
        raise IndexFaultError(f"the pieces of {shown!r} do not make {list(shape)} without gaps")
    return CutTensor(dtype, shape, tuple(pieces))


def _zipped_tensor(file: IO[bytes], size: int, start: int) -> PickledTensor:
    """The one tensor of an archive of `size` bytes that begins at byte `start` of its file."""
    content, places = zipped(file, size)
    if not isinstance(content, PickledTensor):
        raise IndexFaultError("a piece holds no tensor")
    moved = {key: (start + offset, held) for key, (offset, held) in places.items()}
    return placed("a piece", content, moved)


def _lengths(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, tuple):
        return None
    numbers = cast("tuple[Any, ...]", value)
    sound = all(type(each) is int and 0 <= each < 1 << 62 for each in numbers)
    return numbers if sound and len(numbers) <= MAX_DIMENSIONS else None


def _tiles(shape: Sequence[int], pieces: Sequence[Piece]) -> bool:
    """Whether pieces are the cells of a grid over the whole shape, each once."""
    if any(len(each.offsets) != len(shape) for each in pieces):
        return False
    filled = [each for each in pieces if prod(each.stored.shape)]
    if not prod(shape):
        return not filled
    cells = 1
    for axis, length in enumerate(shape):
        ends: dict[int, int] = {}
        for each in filled:
            at = each.offsets[axis]
            if ends.setdefault(at, at + each.stored.shape[axis]) != at + each.stored.shape[axis]:
                return False
        position = 0
        while position in ends:
            position = ends[position]
        if position != length or max(ends) >= length:
            return False
        if sum(end - at for at, end in ends.items()) != length:
            return False
        cells *= len(ends)
    return len({each.offsets for each in filled}) == len(filled) == cells

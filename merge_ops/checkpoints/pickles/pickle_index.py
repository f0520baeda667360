"""The index of a pickled file: names, shapes, strides and where each storage lies; never a tensor.

A pickle is a program. This reads it in a limited child (pickle_reader.py) with Python's unpickler,
which finds nothing but plain containers and stand-ins that hold what they are given: no tensor is
built, nothing is called. What the pickle claims of sizes is compared with what the file holds: with
the entries of the zip archive that torch.save writes, or with the storages that stood one after the
other before torch 1.6.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, cast

from merge_ops.checkpoints.header import ITEM_SIZES, MAX_DIMENSIONS

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers put the weights, beside what else they save."""
GROWTH, SPARE = 8, 16 << 20
"""Tensors may take this many times the file's bytes, and so many more: names share storages."""

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32",
    "uint64": "U64", "bool": "BOOL", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
_STORAGES = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32",
    "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL", "ComplexFloat": "C64",
}  # fmt: skip
# What torch's own loader of weights knows beside them. Here they are stand-ins, and never called:
_KNOWN = frozenset({
    "torch.serialization._get_layout", "torch.device", "torch.layout", "torch.memory_format",
    "torch.Size", "_codecs.encode", "builtins.bytearray", "builtins.complex", "torch.Tensor",
    "torch.nn.parameter.Parameter", "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_nested_tensor", "torch._utils._rebuild_wrapper_subclass",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor", "torch._tensor._rebuild_from_type_v2",
    "torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine",
    "torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams",
})  # fmt: skip
_DTYPE = re.compile(r"bool|q?u?int\d[\dx]*|(bits|complex|float|bfloat)\d\w*")
_TENSOR = re.compile(r"torch(\.cuda)?(\.sparse)?\.[A-Z]\w*Tensor")
_MAGIC = 0x1950A86A20F9469CFC6C


class IndexFaultError(ValueError):
    """A pickled file that is refused; its text says why."""


@dataclass(frozen=True)
class Storage:
    """A storage is a run of bytes of the file: where it begins, and how many there are."""

    key: str
    dtype: str
    nbytes: int
    offset: int = -1


@dataclass(frozen=True)
class PickledTensor:
    """A pickled tensor is a view of a storage, by element: offset, shape, strides."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    storage: Storage

    @property
    def nbytes(self) -> int:
        """Return the bytes that it takes once it is contiguous."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]

    @property
    def is_contiguous(self) -> bool:
        """Return whether its elements lie one after the other, in order."""
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


def read_index(path: Path) -> dict[str, PickledTensor]:
    """Read the index of a pickled file and return its tensors by name, each with its place.

    Raises IndexFaultError where the file asks for more than tensors and plain containers, holds
    none, or claims more than it holds; and what Python's unpickler raises for a damaged one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        content, places = zipped(file, size) if zipfile.is_zipfile(path) else _plain(file, size)
    if not isinstance(content, dict):
        raise IndexFaultError(f"it holds a {_kind(content)}, and no table of tensors")
    found: dict[str, PickledTensor] = {}
    total = 0
    for name, value in unwrapped(cast(dict[object, object], content)).items():
        if not isinstance(name, str) or not isinstance(value, PickledTensor):
            shown = repr(name)[:200]
            raise IndexFaultError(f"its entry {shown} is a {_kind(value)}, and no tensor")
        found[name] = placed(name, value, places)
        total += value.nbytes
        if total > GROWTH * size + SPARE:
            raise IndexFaultError(
                f"its tensors claim more than {total:,} bytes up to {name[:200]!r}, and the file"
                f" has {size:,}: they repeat what is stored more than {GROWTH} times"
            )
    return found


def unwrapped(content: dict[object, object]) -> dict[object, object]:
    """Return the table of weights in what a trainer saved: the content, or one of its entries.

    Raises IndexFaultError where several entries may be the weights: averaged ones (EMA) beside the
    last.
    """
    if any(isinstance(value, PickledTensor) and value.shape for value in content.values()):
        return content
    tables = {
        str(key): cast(dict[object, object], value)
        for key, value in content.items()
        if isinstance(value, dict) and _is_table(cast(dict[object, object], value))
    }
    if len(tables) > 1:
        named = ", ".join(sorted(tables))
        raise IndexFaultError(
            f"it holds several tables of tensors ({named}); save the one that is meant"
        )
    known = [key for key in tables if key in WRAPPERS]
    return tables[known[0]] if known else content


def _is_table(value: dict[object, object]) -> bool:
    pairs = value.items()
    return bool(value) and all(
        isinstance(k, str) and isinstance(v, PickledTensor) for k, v in pairs
    )


def _kind(value: object) -> str:
    return value.what if isinstance(value, _StandIn) else type(value).__name__


class _StandIn:
    """What the unpickler finds instead of a class or function: it is called, and does nothing."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, *_: object) -> _StandIn:
        return _StandIn(self.what)

    def __setstate__(self, state: object) -> None:
        """Take a state, and forget it."""


class _StorageType(_StandIn):
    """The dtype of a typed storage; an untyped one counts bytes."""


class _Dtype(_StandIn):
    """A dtype of torch by its name."""


class _Rebuild(_StandIn):
    """The functions that make a tensor of a storage: what they are given is kept."""

    def __call__(self, *given: Any) -> Any:
        if self.what == "_rebuild_parameter" or self.what == "_rebuild_parameter_with_state":
            return given[0]
        storage, start, shape, strides = given[:4]
        dtype = given[6].what if self.what == "_rebuild_tensor_v3" else storage.dtype
        metadata = given[7:] if self.what == "_rebuild_tensor_v3" else given[6:]
        marks = [cast(dict[str, Any], each) for each in metadata if isinstance(each, dict)]
        if any(any(each.values()) for each in marks):
            return _StandIn("tensor that is to be conjugated or negated")
        numbers = [start, *shape, *strides]
        sound = all(type(each) is int and 0 <= each < 1 << 62 for each in numbers)
        if not sound or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise IndexFaultError(f"a tensor has impossible sizes ({str(shape)[:100]})")
        if dtype not in ITEM_SIZES:
            return _StandIn(f"tensor of {dtype}")
        return PickledTensor(dtype, tuple(shape), tuple(strides), start, storage)


class _Unpickler(pickle.Unpickler):
    """Finds stand-ins, and refuses every other name."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return what stands for a name of the pickle, or raise IndexFaultError."""
        whole = f"{module_name.replace('__builtin__', 'builtins')}.{global_name}"
        if whole == "collections.OrderedDict":
            return collections.OrderedDict
        if whole == "collections.Counter":
            return collections.Counter
        if whole == "builtins.set":
            return set
        rebuild = ("", "_v2", "_v3")
        if whole in {f"torch._utils._rebuild_tensor{each}" for each in rebuild} or whole in {
            f"torch._utils._rebuild_parameter{each}" for each in ("", "_with_state")
        }:
            return _Rebuild(global_name)
        if whole == "torch.storage.UntypedStorage" or whole == "torch.UntypedStorage":
            return _StorageType("U8")
        package, _, name = whole.rpartition(".")
        if package in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage"):
            kind = name.removesuffix("Storage")
            return _StorageType(_STORAGES.get(kind, kind))
        if package == "torch" and _DTYPE.fullmatch(name):
            return _Dtype(DTYPES.get(name, name))
        if whole in _KNOWN or _TENSOR.fullmatch(whole):
            return _StandIn(whole)
        raise IndexFaultError(f"it wants to call {whole[:200]}, and weights have no need of that")

    def persistent_load(self, pid: Any) -> Storage:
        """Return a storage that the pickle names."""
        kind, type_of, key, _, count, *view = pid
        if _text(kind) != "storage" or not isinstance(type_of, _StorageType):
            raise IndexFaultError("it names something else than storages")
        if type(count) is not int or not 0 <= count < 1 << 62:
            raise IndexFaultError(f"storage {str(key)[:100]!r} has an impossible size")
        storage = Storage(_text(key), type_of.what, count * ITEM_SIZES.get(type_of.what, 1))
        if view and view[0] is not None:
            _, start, length = view[0]
            if type(start) is not int or type(length) is not int or min(start, length) < 0:
                raise IndexFaultError(f"storage {str(key)[:100]!r} has an impossible view")
            size = ITEM_SIZES.get(type_of.what, 1)
            return Storage(storage.key, storage.dtype, length * size, start * size)
        return storage


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def zipped(file: IO[bytes], size: int) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """Return what an archive of torch.save holds, and (offset, bytes) of each storage."""
    with zipfile.ZipFile(file) as archive:
        entries = {each.filename: each for each in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise IndexFaultError("it is an archive in which a name stands twice")
        main = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(main) != 1:
            raise IndexFaultError("it is an archive, and none that torch.save writes")
        prefix = main[0].removesuffix("data.pkl")
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise IndexFaultError(
                    f"{name[:200]!r} in it is compressed, which torch.save never does; pack it anew"
                )
            if entry.header_offset + entry.file_size > size:
                raise IndexFaultError(f"{name[:200]!r} in it claims more bytes than the file has")
        order = entries.get(f"{prefix}byteorder")
        if order is not None and order.file_size < 16 and archive.read(order) != b"little":
            raise IndexFaultError("it was saved on a machine of another byte order")
        content = _Unpickler(io.BytesIO(archive.read(main[0]))).load()
        places: dict[str, tuple[int, int]] = {}
        for name, entry in entries.items():
            if name.startswith(f"{prefix}data/"):
                file.seek(entry.header_offset + 26)
                lengths = file.read(4)
                start = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little")
                start += int.from_bytes(lengths[2:], "little")
                places[name.removeprefix(f"{prefix}data/")] = (start, entry.file_size)
        return content, places


def _plain(file: IO[bytes], size: int) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """The content of a file of before torch 1.6, and (offset, bytes) of each storage."""
    head = file.read(512)
    if head[257:262] == b"ustar":
        raise IndexFaultError("it has the form that torch wrote before 0.1.10; save it anew")
    file.seek(0)
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != 1001:
        raise IndexFaultError("it is no file that torch.save wrote")
    _Unpickler(file).load()  # of the machine
    seen: dict[str, int] = {}

    class Noting(_Unpickler):
        def persistent_load(self, pid: Any) -> Storage:
            storage = super().persistent_load(pid)
            seen.setdefault(storage.key, ITEM_SIZES.get(storage.dtype, 1))
            return storage

    content = Noting(file).load()
    places: dict[str, tuple[int, int]] = {}
    for key in map(_text, cast(Sequence[Any], _Unpickler(file).load())):
        count = int.from_bytes(file.read(8), "little")
        nbytes = count * seen.get(key, 1)
        if file.tell() + nbytes > size or key in places:
            raise IndexFaultError(f"storage {key[:100]!r} claims {nbytes:,} bytes; it is cut off")
        places[key] = (file.tell(), nbytes)
        file.seek(nbytes, io.SEEK_CUR)
    return content, places


def placed(
    name: str, tensor: PickledTensor, places: Mapping[str, tuple[int, int]]
) -> PickledTensor:
    """Return the tensor with the place of its storage, once all that it claims is there."""
    storage, shown = tensor.storage, name[:200]
    if storage.key not in places:
        raise IndexFaultError(f"the storage of {shown!r} is not in the file; download it again")
    offset, held = places[storage.key]
    view = max(storage.offset, 0)
    size = ITEM_SIZES[tensor.dtype]
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    needed = (tensor.start + reach + 1) * size if prod(tensor.shape) else 0
    if view + storage.nbytes > held or needed > storage.nbytes:
        raise IndexFaultError(
            f"the tensor {shown!r} claims {max(needed, view + storage.nbytes):,} bytes of a storage"
            f" that has {held:,} in the file"
        )
    place = Storage(storage.key, storage.dtype, storage.nbytes, offset + view)
    return PickledTensor(tensor.dtype, tensor.shape, tensor.strides, tensor.start, place)

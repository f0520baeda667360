"""How an output checkpoint is laid out: shards, offsets and headers, all known before any data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from types import MappingProxyType

from merge_ops.checkpoints.header import ITEM_SIZES

DEFAULT_SHARD_BYTES = 5_000_000_000
_NUMBERS = re.compile(r"(\d+)")
PYTORCH = MappingProxyType({"format": "pt"})


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output tensor is a tensor to be written: name, dtype code and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Return the bytes of its data."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """A shard is one file of the output: its name, header bytes and tensors in data order."""

    file: str
    header: bytes
    tensors: tuple[OutputTensor, ...]

    @cached_property
    def size(self) -> int:
        """Return the bytes of the whole file."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts layer 2 before layer 10."""
    return tuple(map(_part_of_key, _NUMBERS.split(name)))


@lru_cache(maxsize=1 << 12)
def _part_of_key(part: str) -> tuple[int, int | str]:
    """A part of a name; there are few of them in a hundred thousand names."""
    return (0, int(part)) if part.isdigit() else (1, part)


def lay_out(
    tensors: Sequence[OutputTensor],
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    stem: str = "model",
) -> list[Shard]:
    """Pack tensors, in the given order, into shards of at most `shard_bytes` of data.

    Returns the shards in order.

    The files are called `stem`.safetensors, or `stem`-00001-of-0000n.safetensors. A tensor larger
    than a shard gets one of its own. Within a shard wider dtypes come first, so that every tensor
    starts at a multiple of its item size.
    """
    groups: list[list[OutputTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        nbytes = tensor.nbytes
        if groups[-1] and filled + nbytes > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += nbytes
    count = len(groups)
    shards: list[Shard] = []
    for number, group in enumerate(groups, start=1):
        ordered = sorted(group, key=lambda tensor: -ITEM_SIZES[tensor.dtype])
        part = "" if count == 1 else f"-{number:05d}-of-{count:05d}"
        name = f"{stem}{part}.safetensors"
        shards.append(Shard(name, header_of(ordered), tuple(ordered)))
    return shards


def header_of(tensors: Sequence[OutputTensor], metadata: Mapping[str, str] = PYTORCH) -> bytes:
    """Return the header of a safetensors file that holds `tensors` one after the other."""
    # Written piece by piece: a table of a hundred thousand tensors takes five times its text.
    quote = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    header = bytearray(8)
    header += f'{{"__metadata__":{quote(dict(metadata))}'.encode()
    position = 0
    for tensor in tensors:
        end = position + tensor.nbytes
        kind, shape = quote(tensor.dtype), ",".join(map(str, tensor.shape))
        header += (
            f',{quote(tensor.name)}:{{"dtype":{kind},"shape":[{shape}]'
            f',"data_offsets":[{position},{end}]}}'
        ).encode()
        position = end
    header += b"}"
    header += b" " * (-len(header) % 8)
    header[:8] = (len(header) - 8).to_bytes(8, "little")
    return bytes(header)


def index_file(shards: Sequence[Shard]) -> Mapping[str, bytes]:
    """Return the index beside several shards as {file name: bytes}; one shard has none."""
    if len(shards) == 1:
        return {}
    total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors)
    places = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    text = json.dumps(
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}, indent=2
    )
    stem = shards[0].file.rsplit("-", 3)[0]
    return {f"{stem}.safetensors.index.json": text.encode() + b"\n"}

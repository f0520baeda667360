"""What a packed model looks like: a folder with `packed.json`, data files, and plain side files.

    packed.json                    the index below, as JSON
    model.safetensors.packed       the coded pieces of model.safetensors, one behind the other
    config.json, tokenizer.json…   as they are

A weight file is a row of sections: its header, then its tensors in the order of their bytes. Each
section is cut into pieces of `PIECE` elements that are coded one by one, so any run of elements is
read from the pieces it lies in. A section of a tensor that the base has too, with the same dtype
and shape, holds differences (`merge_ops.sources.difference_coding`); any other is coded by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, cast

from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.errors import PackedModelError
from merge_ops.sources.difference_coding import EXPONENTS

INDEX_FILE, DATA_SUFFIX = "packed.json", ".packed"
FORMAT, VERSION = "ronghe packed model", 1
PIECE = 1 << 17
HEADER = "U8"  # a header is so many single bytes
_HASH = re.compile(r"[0-9a-f]{64}")


def piece_bytes(dtype: str) -> int:
    """Return the bytes of a whole piece."""
    return PIECE * ITEM_SIZES[dtype]


@dataclass(frozen=True)
class Section:
    """A section describes a tensor, or a header (`name` None), of a packed file.

    `nbytes` are its bytes in the original file, `lengths` those of each coded piece. `start` is its
    first byte in the original file, `at` the first byte of its first piece in the data file. With
    `from_base` the pieces are differences.
    """

    name: str | None
    dtype: str
    nbytes: int
    from_base: bool
    lengths: tuple[int, ...]
    start: int
    at: int

    @property
    def piece(self) -> int:
        """Return the bytes of every piece but the last."""
        return piece_bytes(self.dtype)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Return where each piece starts in the data file, and where the last one ends."""
        return tuple(accumulate(self.lengths, initial=self.at))

    def bounds(self, piece: int) -> tuple[int, int]:
        """Return the first byte and the end (exclusive) of a piece, within the section."""
        return piece * self.piece, min(self.nbytes, (piece + 1) * self.piece)


@dataclass(frozen=True)
class OriginalFile:
    """An original file is a file as it was before packing: its path, bytes and BLAKE3.

    `sections` are None for a side file, which is kept as it is.
    """

    path: str
    size: int
    blake3: str
    sections: tuple[Section, ...] | None

    @property
    def packed_size(self) -> int:
        """Return the bytes of its data file, or of the file itself where it is a side file."""
        if self.sections is None:
            return self.size
        return sum(sum(section.lengths) for section in self.sections)


@dataclass(frozen=True)
class PackedIndex:
    """A packed index lists all files of a model, and the digest of the base.

    The packed tensors are differences from that base.
    """

    base: str
    files: tuple[OriginalFile, ...]

    @property
    def nbytes(self) -> int:
        """Return the bytes of the model as it was."""
        return sum(file.size for file in self.files)

    @property
    def packed_nbytes(self) -> int:
        """Return the bytes of its files as they are now, without the index."""
        return sum(file.packed_size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for INDEX_FILE."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "piece": PIECE,
            "base": self.base,
            "files": [
                {"path": each.path, "size": each.size, "blake3": each.blake3}
                | ({} if each.sections is None else {"sections": _plain(each.sections)})
                for each in self.files
            ],
        }


def _plain(sections: Sequence[Section]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "dtype": each.dtype,
            "nbytes": each.nbytes,
            "from_base": each.from_base,
            "lengths": list(each.lengths),
        }
        for each in sections
    ]


PULL_AGAIN = (
    "`ronghe verify --repair` sets it aside, and the next `ronghe refresh` pulls the model again"
)


def parse_index(data: bytes, where: str) -> PackedIndex:
    """Read an index, check that it is whole in itself, and return it.

    `where` names it in messages. Raises PackedModelError where it is damaged or of a later version.
    """
    try:
        raw: Any = json.loads(data)
        if raw["format"] != FORMAT or raw["version"] != VERSION or raw["piece"] != PIECE:
            raise PackedModelError(
                f"{where}: it is no {FORMAT} of version {VERSION} with pieces of {PIECE} elements;"
                " a later release may have written it, so restore the model with that one"
            )
        files = tuple(_file(each) for each in raw["files"])
        base = _right(_HASH.fullmatch(raw["base"]) is not None, cast(str, raw["base"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"
        raise PackedModelError(
            f"{where}: the index of the packed model is damaged ({told}); {PULL_AGAIN}"
        ) from error
    if not files or len({file.path for file in files}) != len(files):
        raise PackedModelError(f"{where}: the index lists no file, or one twice; {PULL_AGAIN}")
    return PackedIndex(base, files)


def _right(fits: bool, value: Any) -> Any:
    if not fits:
        raise ValueError("a value is not what it must be")
    return value


def _file(raw: Any) -> OriginalFile:
    path = _right(isinstance(raw["path"], str) and _is_inside(raw["path"]), raw["path"])
    size = _right(_is_count(raw["size"]), raw["size"])
    digest = _right(_HASH.fullmatch(raw["blake3"]) is not None, raw["blake3"])
    if "sections" not in raw:
        return OriginalFile(path, size, digest, None)
    sections: list[Section] = []
    start = at = 0
    for each in raw["sections"]:
        sections.append(_section(each, start, at))
        start, at = start + sections[-1].nbytes, at + sum(sections[-1].lengths)
    return _right(start == size, OriginalFile(path, size, digest, tuple(sections)))


def _section(raw: Any, start: int, at: int) -> Section:
    name, dtype, lengths = raw["name"], raw["dtype"], tuple(raw["lengths"])
    from_base = _right(type(raw["from_base"]) is bool, raw["from_base"])
    section = Section(name, dtype, raw["nbytes"], from_base, lengths, start, at)
    fits = (
        (name is None or isinstance(name, str))
        and _is_count(section.nbytes)
        and section.nbytes % ITEM_SIZES[dtype] == 0
        and all(_is_count(length) for length in lengths)
        and len(lengths) == -(-section.nbytes // section.piece)
        and not (section.from_base and (name is None or dtype not in EXPONENTS))
    )
    return _right(fits, section)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return not any(part in ("", ".", "..") for part in parts) and "\\" not in path

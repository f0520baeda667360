"""The pickled files of a model, and the limited child that reads them.

What the child may take is in line with the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from merge_ops.checkpoints.files.file_names import (
    ADAPTER_PICKLE,
    PICKLE,
    PICKLE_INDEX,
    SINGLE,
    loose_pickles,
)
from merge_ops.checkpoints.header import MAX_HEADER
from merge_ops.checkpoints.pickles.dcp_folders import METADATA, metadata_of
from merge_ops.checkpoints.pickles.pickle_index import GROWTH, SPARE
from merge_ops.children import LimitedChild
from merge_ops.errors import CheckpointError, ChildError

# Of data, of which the index takes all: about a kilobyte for each tensor.
LEAST_MEMORY, MEMORY_A_BYTE, MOST_MORE = 512 << 20, 4, 3 << 29
# CPU time; copying takes a hundredth of it.
LEAST_SECONDS, BYTES_A_SECOND = 60, 20 << 20
_WAY = "Ask for safetensors, or convert the file where it came from"


@dataclass(frozen=True)
class PickledParts:
    """The pickled files of a folder: the safetensors file of each, and the index of shards."""

    place: str
    renamed: Mapping[str, str]
    index: bytes | None

    @classmethod
    def of_file(cls, file: Path) -> PickledParts:
        """Return the one part that a single file is."""
        return cls(str(file), {file.name: safetensors_name(file.name)}, None)

    @classmethod
    def find(cls, folder: Path, called: str | None = None, adapter: bool = False) -> PickledParts:
        """Return the parts of a folder. Raises CheckpointError as `convert_folder` does."""
        index, place = folder / PICKLE_INDEX, called or str(folder)
        metadata = None if adapter else metadata_of(folder)
        if metadata is not None:
            return cls(place, {metadata: SINGLE}, None)
        plain = [name for name in (ADAPTER_PICKLE, PICKLE) if (folder / name).is_file()]
        names = _shards(index, f"{place}/{PICKLE_INDEX}") if index.is_file() and not adapter else {}
        if adapter:
            plain = [ADAPTER_PICKLE]
        elif names and PICKLE in plain:
            if all((folder / name).is_file() for name in names.values()):
                raise CheckpointError(
                    f"{place} holds two sets of weights, {PICKLE} and the shards of {PICKLE_INDEX},"
                    f" and both are whole; remove or move the one that is not meant (transformers"
                    f" takes {PICKLE})"
                )
            names = {}
        elif not names and not plain:
            plain = loose_pickles([path.name for path in folder.iterdir() if path.is_file()])
        renamed = {name: safetensors_name(name) for name in (*names.values(), *plain)}
        for name in renamed:
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{place}/{PICKLE_INDEX}: shard {name} is not there; download it again"
                )
        if not names:
            return cls(place, renamed, None)
        table = {"metadata": {}, "weight_map": {key: renamed[file] for key, file in names.items()}}
        return cls(place, renamed, json.dumps(table, indent=2, ensure_ascii=False).encode())


class PickleReader:
    """A limited child that reads the pickled files of one model, which messages call `place`."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._child: LimitedChild | None = None

    def header(self, file: Path) -> bytes:
        """Return the header that a pickled file has as safetensors; no tensor is read.

        Raises CheckpointError where the file is refused, or the child that reads it ended.
        """
        return self._ask(file, None)

    def convert(self, file: Path, made: Path) -> bytes:
        """Write a pickled file as the safetensors file `made`, and return its header.

        Raises CheckpointError as `header` does, and where the file changes meanwhile.
        """
        before = _state(file)
        header = self._ask(file, made.absolute())
        if _state(file) != before:
            raise CheckpointError(
                f"{self._place}: {file.name} changed while it was read; wait until it is written,"
                " and run this again"
            )
        return header

    def _ask(self, file: Path, into: Path | None) -> bytes:
        size = sum(each.stat().st_size for each in _read_with(file))
        memory = LEAST_MEMORY + min(MEMORY_A_BYTE * size, MOST_MORE)
        self.__exit__()  # a child a file: its file is bounded by what it may become
        self._child = LimitedChild(
            "merge_ops.checkpoints.pickles.pickle_reader",
            memory=memory,
            cpu_seconds=LEAST_SECONDS + size // BYTES_A_SECOND,
            file_bytes=GROWTH * size + 2 * SPARE + MAX_HEADER,
        )
        request = {"file": str(file.absolute()), "into": str(into) if into else None}
        try:
            told = self._child.ask(request, f"reads pickles of {self._place}")
        except ChildError as error:
            raise CheckpointError(
                f"{self._place}: {file.name} is refused, and nothing in it was run: {error}. {_WAY}"
            ) from error
        if "refused" in told:
            raise CheckpointError(
                f"{self._place}: its pickled weights are refused, and nothing in them was run:"
                f" {file.name}: {str(told['refused'])[:400]}. {_WAY}"
            )
        return str(told["header"]).encode(errors="replace")

    def __enter__(self) -> PickleReader:
        """Enter the context at whose end the child is closed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None


def _state(file: Path) -> tuple[int, ...]:
    facts = [each.stat() for each in _read_with(file)]
    return tuple(
        number
        for told in facts
        for number in (told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)
    )


def _read_with(file: Path) -> list[Path]:
    """A file and, of the index of a distributed checkpoint, those whose ranges it names."""
    if file.name != METADATA:
        return [file]
    return [file, *sorted(file.parent.glob("*.distcp"))]


def _shards(index: Path, called: str) -> dict[str, str]:
    """Tensor → file of pytorch_model.bin.index.json."""
    try:
        table: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        found = {str(key): str(file) for key, file in cast(dict[Any, Any], table).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{called}: 'weight_map' is missing or no table") from error
    for file in found.values():
        if PurePosixPath(file).name != file or "\\" in file or not file.endswith(".bin"):
            raise CheckpointError(f"{called}: shard {file!r} is no .bin file beside the index")
    return found


def safetensors_name(name: str) -> str:
    """The safetensors file of a pickle: model.safetensors for pytorch_model.bin, else its own."""
    if name.startswith("pytorch_model"):
        name = name.removeprefix("pytorch_")
    return f"{name.rpartition('.')[0]}.safetensors"

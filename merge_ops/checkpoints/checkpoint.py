"""What a checkpoint folder looks like: safetensors headers, indexes, and bytes by (file, offset).

This module knows the format; where the bytes live is the business of a `ByteSource` or `ByteSink`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, cast

from merge_ops.checkpoints.header import TensorEntry, read_header
from merge_ops.checkpoints.strict_json import parse_json_object
from merge_ops.checkpoints.tensor_sources import Stored, TensorSource
from merge_ops.errors import CheckpointError, MissingModelError, OutputError

SINGLE_FILE = "model.safetensors"
MAX_SIDE_FILE = 200_000_000
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD_SUFFIX = re.compile(r"(-\d+-of-\d+)?\.safetensors$")


class ByteSource(Protocol):
    """A place that holds the files of one checkpoint; reads are thread-safe."""

    @property
    def location(self) -> str:
        """Where this is, for messages."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Every file's relative POSIX path and its size in bytes."""
        ...

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise OSError."""
        ...


class ByteWriter(Protocol):
    """One file being written in order; left with an exception, it publishes nothing."""

    def write(self, data: memoryview | bytes) -> object:
        """Append bytes."""
        ...

    def __enter__(self) -> ByteWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None: ...


class ByteSink(Protocol):
    """A place that takes the files of one checkpoint."""

    def open(self, file: str, size: int) -> ByteWriter:
        """Start the file `file` of exactly `size` bytes."""
        ...


class FolderSource:
    """A local folder, read by `pread` from files that stay open; `only` hides all but one file."""

    def __init__(self, folder: Path, only: str | None = None) -> None:
        self._folder = folder
        self._only = only
        self._open: dict[str, FileIO] = {}

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def sizes(self) -> Mapping[str, int]:
        """Sizes of all regular files below the folder, hidden ones left out."""
        if not self._folder.is_dir():
            return {}
        if self._only is not None:
            return {self._only: (self._folder / self._only).stat().st_size}
        found: dict[str, int] = {}
        for path in sorted(self._folder.rglob("*")):
            relative = path.relative_to(self._folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                found[relative.as_posix()] = path.stat().st_size
        return found

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` of `file`."""
        opened = self._open.get(file)
        if opened is None:
            fresh = FileIO(self._folder / file)
            opened = self._open.setdefault(file, fresh)
            if opened is not fresh:  # another thread was first
                fresh.close()
        done = 0
        while done < len(buffer):
            count = os.preadv(opened.fileno(), [buffer[done:]], offset + done)
            if count == 0:
                raise OSError(f"{self._folder / file} ends at byte {offset + done}")
            done += count

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        self.close()


class FolderSink:
    """A local folder that files are written into, in place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, file: str, size: int) -> ByteWriter:
        """Start `file`; its blocks are reserved at once, so a full disk shows before any work."""
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("wb", buffering=0)
        try:
            if size:
                os.posix_fallocate(handle.fileno(), 0, size)
        except OSError as error:
            handle.close()
            path.unlink()
            raise OutputError(
                f"{path}: {size} bytes cannot be reserved ({error.strerror}); free space or choose"
                " another output folder"
            ) from error
        return cast(ByteWriter, handle)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint known by its headers: tensors by name, its config, and where it is.

    `overlays` are tensors that are computed when they are read, as an adapter's are.
    """

    name: str
    source: ByteSource
    tensors: Mapping[str, TensorEntry]
    config: Mapping[str, Any]
    digest: str | None = None
    files: Mapping[str, int] = field(default_factory=dict[str, int])
    overlays: Mapping[str, TensorSource] = field(default_factory=dict[str, "TensorSource"])

    def source_of(self, name: str) -> TensorSource | None:
        """Where the tensor's values come from; None where there is no such tensor."""
        entry = self.tensors.get(name)
        if entry is None:
            return None
        return self.overlays.get(name) or Stored(self, name, entry)

    @property
    def stem(self) -> str:
        """What its weight files are called: `model`, or diffusers' and other names."""
        files = {entry.file for entry in self.tensors.values()} or {SINGLE_FILE}
        return _SHARD_SUFFIX.sub("", PurePosixPath(min(files)).name)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @property
    def ties_embeddings(self) -> bool:
        """Whether the output head is the input embedding (`tie_word_embeddings`)."""
        text = self.config.get("text_config")
        nested: Mapping[str, Any] = cast(Mapping[str, Any], text) if isinstance(text, dict) else {}
        return bool(self.config.get("tie_word_embeddings", nested.get("tie_word_embeddings")))


def read_file(source: ByteSource, file: str, offset: int, length: int) -> bytes:
    """`length` bytes of a small range."""
    buffer = bytearray(length)
    source.read_into(file, offset, memoryview(buffer))
    return bytes(buffer)


def read_json(source: ByteSource, file: str, size: int) -> dict[str, Any]:
    """A side file's JSON object. Raises CheckpointError when it is none, or far too long."""
    where = f"{source.location}/{file}"
    if size > MAX_SIDE_FILE:
        raise CheckpointError(
            f"{where}: has {size} bytes, and a side file of a model has at most {MAX_SIDE_FILE};"
            " restore the file from its source"
        )
    return parse_json_object(where, read_file(source, file, 0, size))


def open_checkpoint(name: str, source: ByteSource, digest: str | None = None) -> Checkpoint:
    """Read a checkpoint's headers (a few KB); no weight is read.

    Raises MissingModelError where nothing is, CheckpointError where the files contradict the
    format: truncated, header longer than the file, overlapping or missing ranges, an index that
    points outside the folder or to tensors that are not there.
    """
    files = source.sizes()
    if not files:
        raise MissingModelError(
            f"model '{name}': {source.location} does not exist or is empty; give a folder with"
            " config.json and .safetensors files"
        )
    if "adapter_config.json" in files and "config.json" not in files:
        raise CheckpointError(
            f"model '{name}': {source.location} is a LoRA adapter, which is no model"
            " without its base; name both, as 'base+adapter' (`ronghe merge-adapters` merges"
            " adapters alone, into an adapter)"
        )
    tensors: dict[str, TensorEntry] = {}
    for file, expected in _weight_files(name, source, files).items():
        found = _header(source, file, files[file])
        if expected is not None and set(expected) - set(found):
            absent = sorted(set(expected) - set(found))[0]
            raise CheckpointError(
                f"{source.location}: the index says tensor '{absent}' is in {file}, which does not"
                " hold it; the download is incomplete or files of two revisions are mixed"
            )
        for key, entry in found.items():
            if key in tensors:
                raise CheckpointError(
                    f"{source.location}: tensor '{key}' is in {tensors[key].file} and in {file};"
                    " remove the stale file"
                )
            tensors[key] = entry
    config = (
        read_json(source, "config.json", files["config.json"]) if "config.json" in files else {}
    )
    return Checkpoint(name, source, tensors, config, digest, files)


def _weight_files(
    name: str, source: ByteSource, files: Mapping[str, int]
) -> dict[str, list[str] | None]:
    """The files that hold weights, each with the tensors its index promises (None: no index)."""
    here = [file for file in files if "/" not in file]
    indexes = [file for file in here if file.endswith(INDEX_SUFFIX)]
    index_file = f"model{INDEX_SUFFIX}"
    if index_file in indexes or len(indexes) == 1:
        return _indexed(source, files, index_file if index_file in indexes else indexes[0])
    if SINGLE_FILE in files:
        return {SINGLE_FILE: None}
    loose = [file for file in here if file.endswith(".safetensors")]
    if len(loose) == 1:
        return {loose[0]: None}
    pickles = [file for file in files if file.endswith((".bin", ".pt", ".pth"))]
    if pickles and not loose:
        raise CheckpointError(
            f"model '{name}': {source.location} holds pickled weights ({pickles[0]}), which can run"
            " code when opened; convert it to safetensors first"
        )
    quantized = [file for file in here if file.endswith(".gguf")]
    if quantized and not loose:
        raise CheckpointError(
            f"model '{name}': {source.location} holds quantized weights ({quantized[0]}); merge the"
            " unquantized safetensors checkpoint and quantize the result"
        )
    what = "no .safetensors file" if not loose else f"{len(loose)} .safetensors files and no index"
    raise MissingModelError(
        f"model '{name}': {source.location} holds {what}; {SINGLE_FILE} or shards with {index_file}"
        " are expected"
    )


def _indexed(
    source: ByteSource, files: Mapping[str, int], index_file: str
) -> dict[str, list[str] | None]:
    """The shards that an index names; each must be there."""
    index = read_json(source, index_file, files[index_file]).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{source.location}/{index_file}: 'weight_map' is missing")
    shards: dict[str, list[str] | None] = {}
    for tensor, shard in cast(dict[str, object], index).items():
        file = _inside(source, index_file, shard)
        if file not in files:
            raise CheckpointError(
                f"{source.location}/{index_file}: shard {file} is not there; download it again"
            )
        promised = shards.setdefault(file, [])
        assert promised is not None
        promised.append(tensor)
    return shards


def _inside(source: ByteSource, index_file: str, shard: object) -> str:
    path = PurePosixPath(str(shard))
    if not isinstance(shard, str) or path.is_absolute() or ".." in path.parts or "\\" in shard:
        raise CheckpointError(
            f"{source.location}/{index_file}: shard {shard!r} lies outside the folder; an index may"
            " only name files beside it"
        )
    return path.as_posix()


def _header(source: ByteSource, file: str, size: int) -> dict[str, TensorEntry]:
    return read_header(
        f"{source.location}/{file}", file, size, lambda at, n: read_file(source, file, at, n)
    )

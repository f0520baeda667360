"""What a checkpoint is: a folder of safetensors files, known by its headers, and its tensors.

Most tensors lie in a file as they are (`Stored`). Others are computed block by block while they are
read: a LoRA product, rows gathered for a merged vocabulary. A merge method sees no difference.
This module knows the format; where the bytes live is the business of a `ByteSource`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, cast

import blake3

from merge_ops.checkpoints.byte_sources import ByteSource, FolderSource, read_file
from merge_ops.checkpoints.header import TensorEntry, read_header
from merge_ops.checkpoints.json_files import JsonFiles
from merge_ops.errors import CheckpointError, MissingModelError

if TYPE_CHECKING:
    from torch import Tensor

SINGLE_FILE = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD_SUFFIX = re.compile(r"(-\d+-of-\d+)?\.safetensors$")


Fetch = Callable[["Stored", int, int], "Tensor"]
"""(stored, start, count) → those elements, flat, as float32 on the stream's device."""
DigestOf = Callable[["Checkpoint"], "str | None"]
"""The content digest of a model; None where it is not known."""


class TensorSource(Protocol):
    """A tensor source gives the values of one tensor of one model.

    `fill` must give the same bits for every way to cut the tensor in blocks.
    """

    @property
    def model(self) -> str:
        """Return the name of the model, for messages and random streams."""
        ...

    @property
    def dtype(self) -> str:
        """Return the safetensors dtype code."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape."""
        ...

    @property
    def nbytes(self) -> int:
        """Return how many bytes are read to have the whole tensor once."""
        ...

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored tensors that the values are made of."""
        ...

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return plain data that decides every bit: the models' digests, names, numbers."""
        ...

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Write elements [start, start + n) to `into`, flat float32 of n elements."""
        ...


@dataclass(frozen=True)
class Stored:
    """A stored tensor lies in a file of a checkpoint."""

    checkpoint: Checkpoint
    name: str
    entry: TensorEntry

    @property
    def model(self) -> str:
        """Return the checkpoint's name."""
        return self.checkpoint.name

    @property
    def dtype(self) -> str:
        """Return the dtype code as stored."""
        return self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape as stored."""
        return self.entry.shape

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tensor in the file."""
        return self.entry.nbytes

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return this tensor alone."""
        return (self,)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the checkpoint's digest and the tensor's name."""
        return [digest_of(self.checkpoint), self.name]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Read elements [start, start + n) into `into`, flat float32 of n elements."""
        into.copy_(fetch(self, start, into.numel()))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint is known by its headers: its tensors by name, its config and its place.

    `overlays` are tensors that are computed when they are read, as those of an adapter are. Then
    `made_of` holds the base and the adapter, whose digests together make the digest.
    """

    name: str
    source: ByteSource
    tensors: Mapping[str, TensorEntry]
    config: Mapping[str, Any]
    digest: str | None = None
    files: Mapping[str, int] = field(default_factory=dict[str, int])
    overlays: Mapping[str, TensorSource] = field(default_factory=dict[str, "TensorSource"])
    made_of: tuple[Checkpoint, ...] = ()

    @cached_property
    def json_files(self) -> JsonFiles:
        """Return the JSON files beside the weights."""
        return JsonFiles(self.source, self.files)

    @property
    def stem(self) -> str:
        """Return the stem of the weight files' names: `model`, or another as in diffusers."""
        files = {entry.file for entry in self.tensors.values()} or {SINGLE_FILE}
        return _SHARD_SUFFIX.sub("", PurePosixPath(min(files)).name)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @property
    def ties_embeddings(self) -> bool:
        """Return whether the output head is the input embedding (`tie_word_embeddings`)."""
        text = self.config.get("text_config")
        nested: Mapping[str, Any] = cast(Mapping[str, Any], text) if isinstance(text, dict) else {}
        return bool(self.config.get("tie_word_embeddings", nested.get("tie_word_embeddings")))


def stacked_digest(digests: Sequence[str | None]) -> str | None:
    """Return the digest of a model that is made of several models.

    It is None where the digest of one of them is not known.
    """
    if None in digests:
        return None
    return blake3.blake3("+".join(map(str, digests)).encode()).hexdigest()


def source_of(checkpoint: Checkpoint, name: str) -> TensorSource | None:
    """Return the source of a tensor's values, or None where there is no such tensor."""
    entry = checkpoint.tensors.get(name)
    if entry is None:
        return None
    return checkpoint.overlays.get(name) or Stored(checkpoint, name, entry)


def open_checkpoint(
    name: str, source: ByteSource | None = None, digest: str | None = None
) -> Checkpoint:
    """Read a checkpoint's headers (a few KB) and return it; no weight is read.

    Without a `source` it is the folder `name`. Raises MissingModelError where nothing is,
    CheckpointError where the files contradict the format: truncated, header longer than the file,
    overlapping or missing ranges, an index that points outside the folder or to tensors that are
    not there.
    """
    source = source or FolderSource(Path(name))
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
        entries = _header(source, file, files[file])
        if expected is not None and set(expected) - set(entries):
            absent = sorted(set(expected) - set(entries))[0]
            raise CheckpointError(
                f"{source.location}: the index says tensor '{absent}' is in {file}, which does not"
                " hold it; the download is incomplete or files of two revisions are mixed"
            )
        for key, entry in entries.items():
            if key in tensors:
                raise CheckpointError(
                    f"{source.location}: tensor '{key}' is in {tensors[key].file} and in {file};"
                    " remove the stale file"
                )
            tensors[key] = entry
    checkpoint = Checkpoint(name, source, tensors, {}, digest, files)
    if "config.json" not in files:
        return checkpoint
    return dataclasses.replace(checkpoint, config=checkpoint.json_files.read("config.json"))


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
    index = JsonFiles(source, files).read(index_file).get("weight_map")
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

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
from math import prod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import blake3

from merge_ops.checkpoints.configs.tie_defaults import always_ties, default_tie, stated_tie
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.files.json_files import JsonFiles
from merge_ops.checkpoints.header import ITEM_SIZES, TensorEntry
from merge_ops.checkpoints.names.tensor_names import is_head
from merge_ops.checkpoints.names.tied_copies import find_copies
from merge_ops.errors import Caution

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
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


class UnreadTensor:
    """An unread tensor is a tensor source that nothing is read for: drawn, given or missing."""

    @property
    def nbytes(self) -> int:
        """Return 0: nothing is read."""
        return 0

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return nothing: no stored tensor is read."""
        return ()


class Numbers(UnreadTensor):
    """Numbers are a tensor source that nothing is read for, and that needs no torch.

    It gives its elements by `numbers`; `fill` is for those who have a tensor already.
    """

    def numbers(self, start: int, count: int) -> NDArray[np.float32]:
        """Return elements [start, start + count), shape (count,)."""
        raise NotImplementedError

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Write elements [start, start + n) to `into`, flat float32 of n elements."""
        import torch

        into.copy_(torch.tensor(self.numbers(start, into.numel())))


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, eq=False)
class RearrangedTensor:
    """A rearranged tensor is read as another one is: of its model, dtype, shape and parts.

    Its `nbytes` are those of the tensor alone, also where more is read to know the arrangement.
    """

    own: TensorSource

    @property
    def model(self) -> str:
        """Return the name of the model whose tensor this is."""
        return self.own.model

    @property
    def dtype(self) -> str:
        """Return the dtype code, which stays."""
        return self.own.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, which stays."""
        return self.own.shape

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tensor."""
        return self.own.nbytes

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of the tensor."""
        return self.own.parts


def unstored_entry(source: TensorSource) -> TensorEntry:
    """Return the header's entry of a tensor that lies in no file: dtype, shape and its bytes."""
    nbytes = prod(source.shape) * ITEM_SIZES[source.dtype]
    return TensorEntry(source.dtype, source.shape, "", 0, nbytes)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint is known by its headers: its tensors by name, its config and its place.

    `overlays` are tensors that are computed when they are read, as those of an adapter are. Then
    `made_of` holds the base and the adapter, whose digests together make the digest. `cautions` are
    what was seen of the folder that a person should look at. `left_out` holds the reason for each
    tensor of the folder that takes no part. `distinct` says that no tensor is a copy of another,
    as in the result of a merge: so its bytes need not be asked. `origin` is the URI that names the
    model for others, such as hf://owner/name@commit; it is for people, and in no digest.
    """

    name: str
    source: ByteSource
    tensors: Mapping[str, TensorEntry]
    config: Mapping[str, Any]
    digest: str | None = None
    files: Mapping[str, int] = field(default_factory=dict[str, int])
    overlays: Mapping[str, TensorSource] = field(default_factory=dict[str, "TensorSource"])
    made_of: tuple[Checkpoint, ...] = ()
    cautions: tuple[Caution, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    distinct: bool = False
    origin: str | None = None

    @cached_property
    def json_files(self) -> JsonFiles:
        """Return the JSON files beside the weights."""
        return JsonFiles(self.source, self.files)

    @property
    def stem(self) -> str:
        """Return the stem of the weight files' names: `model`, or another as in diffusers.

        An adapter's files name nothing. A model of transformers is `model`, whatever its file was
        called: nothing else is loaded. Of several stems it is `model`, or that of the index, or
        that of the largest part.
        """
        if self.made_of:
            return self.made_of[0].stem
        if self.config.get("model_type") and "_class_name" not in self.config:
            return SINGLE_FILE.removesuffix(".safetensors")
        sizes: dict[str, int] = {}
        for entry in self.tensors.values():
            stem = _SHARD_SUFFIX.sub("", PurePosixPath(entry.file).name)
            sizes[stem] = sizes.get(stem, 0) + entry.nbytes
        indexed = [each for each in sizes if f"{each}{INDEX_SUFFIX}" in self.files]
        usual = SINGLE_FILE.removesuffix(".safetensors")
        if usual in sizes or not sizes:
            return usual
        return min(indexed or sizes, key=lambda stem: (-sizes[stem], stem))

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @property
    def ties_embeddings(self) -> bool:
        """Return whether the output head is the input embedding where no head is stored.

        The config says it (`tie_word_embeddings`, also in a nested config); else the default of its
        class; else a checkpoint without a head is a tied one. A head that is stored may be one of
        its own all the same: see `ties.own_heads`.
        """
        if always_ties(self.config):
            return True
        known = stated_tie(self.config)
        known = default_tie(self.config) if known is None else known
        if known is None:
            return bool(self.config) and not any(map(is_head, self.tensors))
        return known

    @cached_property
    def copies(self) -> Mapping[str, str]:
        """Return the stored tensors that are copies, each with the tensor whose copy it is.

        Bytes are read where a tensor may be a copy, and nothing where none may be. Raises
        CheckpointError where they cannot be read.
        """
        if self.made_of:
            below = self.made_of[0].copies
            return {name: other for name, other in below.items() if name not in self.overlays}
        if self.distinct:
            return {}
        # What is left out must come back when the result is loaded: by the class's default too.
        stated = stated_tie(self.config)
        tied = default_tie(self.config) is True if stated is None else stated
        inputs = tied or always_ties(self.config)
        return find_copies(self.source, self.tensors, heads_may_be=tied, inputs_may_be=inputs)


def with_digests(model: Checkpoint, digests: Mapping[ByteSource, str]) -> Checkpoint:
    """Return a model with the digests of the places that it is read from, of all its parts."""
    made_of = tuple(with_digests(each, digests) for each in model.made_of)
    digest = (
        stacked_digest([each.digest for each in made_of])
        if made_of
        else digests.get(model.source, model.digest)
    )
    return dataclasses.replace(model, made_of=made_of, digest=digest)


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

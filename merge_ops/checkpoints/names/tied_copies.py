"""Which stored tensors are copies of others: the bytes decide, where a config says that it may be.

A file of safetensors that transformers wrote holds a tied tensor once. Converted pickles and files
of other tools hold it under all its names, and some hold a head of its own under a config that says
it is tied: transformers 5 then loads both as they are. Only equal bytes tell these apart.

Where no tensor may be a copy, nothing is read. Two tensors that differ are mostly found to do so in
the first block; equal ones are read once for a checkpoint, in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.tie_names import (
    bias_partners,
    inputs_for,
    is_bias_copy,
    is_output,
    shared_names,
)
from merge_ops.errors import CheckpointError

FIRST_BLOCK, LAST_BLOCK = 1 << 16, 1 << 23  # bytes; most tensors that differ do so at once


def find_copies(
    source: ByteSource,
    tensors: Mapping[str, TensorEntry],
    heads_may_be: bool,
    inputs_may_be: bool,
) -> Mapping[str, str]:
    """Return the tensors that are copies, each with the tensor whose copy it is.

    `heads_may_be` says whether heads and their biases may be copies, `inputs_may_be` whether the
    embeddings of encoder and decoder may be. Raises CheckpointError where a tensor cannot be read.
    """
    copies: dict[str, str] = {}
    for name, other in _pairs(tensors, heads_may_be, inputs_may_be):
        known = copies.get(other, other)
        if name not in copies and equal_bytes(source, tensors[name], tensors[known]):
            copies[name] = known
    return copies


def _pairs(
    tensors: Mapping[str, TensorEntry], heads: bool, inputs: bool
) -> Iterator[tuple[str, str]]:
    """What may be a copy of what: embeddings of coders first, then heads and biases."""
    if inputs:
        for name in tensors:
            family = shared_names(name)
            if family and family[0] != name and family[0] in tensors:
                yield name, family[0]
    if not heads:
        return
    for name in tensors:
        if is_output(name):
            yield from ((name, other) for other in inputs_for(name, tensors) if other != name)
        elif is_bias_copy(name):
            yield from ((name, other) for other in bias_partners(name) if other in tensors)


def equal_bytes(source: ByteSource, one: TensorEntry, other: TensorEntry) -> bool:
    """Return whether two tensors of a model are equal bit for bit.

    Reads blocks of both up to the first difference, and nothing where dtypes or shapes differ.
    Raises CheckpointError where they cannot be read.
    """
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    done, block = 0, FIRST_BLOCK
    while done < one.nbytes:
        count = min(block, one.nbytes - done)
        if _bytes_of(source, one, done, count) != _bytes_of(source, other, done, count):
            return False
        done += count
        block = min(2 * block, LAST_BLOCK)
    return True


def _bytes_of(source: ByteSource, entry: TensorEntry, start: int, count: int) -> bytes:
    try:
        return read_file(source, entry.file, entry.offset + start, count)
    except OSError as error:
        raise CheckpointError(
            f"{source.location}/{entry.file} cannot be read ({error}); two of its tensors had to be"
            " compared, which may be one. Fetch the file again"
        ) from error

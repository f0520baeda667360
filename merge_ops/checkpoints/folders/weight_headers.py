"""The headers of all files that hold a model's weights, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.files.file_bounds import MAX_TENSORS
from merge_ops.checkpoints.header import TensorEntry, read_header, too_many
from merge_ops.errors import CheckpointError


def weight_headers(
    source: ByteSource, files: Mapping[str, int], promised: Mapping[str, Sequence[str] | None]
) -> dict[str, TensorEntry]:
    """Read the headers of the `promised` files and return their tensors by name.

    Raises CheckpointError where a header is damaged, a tensor is in two files, or one that the
    index promises is not there.
    """
    tensors: dict[str, TensorEntry] = {}
    for file, expected in promised.items():
        where = f"{source.location}/{file}"
        entries = read_header(
            where, file, files[file], lambda at, n, file=file: read_file(source, file, at, n)
        )
        absent = sorted(set(expected or ()) - set(entries))
        if absent:
            raise CheckpointError(
                f"{source.location}: the index says tensor '{absent[0]}' is in {file}, which does"
                " not hold it; the download is incomplete or files of two revisions are mixed"
            )
        if len(tensors) + len(entries) > MAX_TENSORS:
            raise CheckpointError(too_many(source.location))
        if not tensors:
            tensors = entries
            continue
        for key, entry in entries.items():
            if key in tensors:
                raise CheckpointError(
                    f"{source.location}: tensor '{key}' is in {tensors[key].file} and in {file};"
                    " remove the stale file"
                )
            tensors[key] = entry
    return tensors

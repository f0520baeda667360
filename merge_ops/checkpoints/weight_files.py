"""Which files of a folder hold the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import cast

from merge_ops.checkpoints.byte_sources import ByteSource
from merge_ops.checkpoints.checkpoint import INDEX_SUFFIX, SINGLE_FILE
from merge_ops.checkpoints.json_files import JsonFiles
from merge_ops.errors import CheckpointError, MissingModelError


def weight_files(
    name: str, source: ByteSource, files: Mapping[str, int]
) -> dict[str, list[str] | None]:
    """Return the files that hold weights, each with the tensors its index promises.

    None stands for a file that no index names. Raises CheckpointError for an index that contradicts
    the folder or points outside it, MissingModelError where no weights are.
    """
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

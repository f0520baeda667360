"""Facts of a model, told from its config and headers, for people who look at a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from merge_ops.checkpoints.buffers import is_buffer
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.depth import layers_of
from merge_ops.checkpoints.file_names import top_level
from merge_ops.checkpoints.folder_verdict import FolderReading
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.tensor_names import is_embedding, is_head

_VOCABULARIES = (
    "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json",
    "tekken.json", "spiece.model",
)  # fmt: skip
_QUANTIZED = ("quantization_config", "quantization", "compression_config")


@dataclass(frozen=True)
class ModelFacts:
    """Model facts are what a folder's config and headers say of a model; plain data.

    `layers` counts the layers of each stack, `dtypes` the tensors of each dtype. `prefix` is what
    all names of tensors start with, `buffers` are tensors that loading computes anew.
    """

    architectures: tuple[str, ...]
    model_type: str
    layers: Mapping[str, int]
    tensors: int
    parameters: int
    nbytes: int
    dtypes: Mapping[str, int]
    tie: str
    quantization: str
    vocabulary: tuple[str, ...]
    buffers: tuple[str, ...]
    prefix: str

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return asdict(self)


def model_facts(reading: FolderReading) -> ModelFacts | None:
    """Return the facts of what was read, or None where no tensors are known."""
    if not reading.tensors:
        return None
    config, tensors = reading.config, reading.tensors
    given: Any = config.get("architectures") or config.get("_class_name") or ()
    architectures: list[Any] = [given] if isinstance(given, str) else list(given)
    here = top_level(reading.files)
    return ModelFacts(
        tuple(map(str, architectures)),
        str(config.get("model_type", "")),
        dict(layers_of(tensors)),
        len(tensors),
        sum(entry.count for entry in tensors.values()),
        sum(entry.nbytes for entry in tensors.values()),
        dict(Counter(entry.dtype for entry in tensors.values()).most_common()),
        _tie(reading),
        _quantization(reading),
        tuple(
            file for file in here if file in _VOCABULARIES or file.endswith((".model", ".tiktoken"))
        ),
        tuple(sorted(filter(is_buffer, tensors))),
        _prefix(list(tensors)),
    )


def _tie(reading: FolderReading) -> str:
    """How the output head and the input embedding belong together, in words."""
    heads = sorted(filter(is_head, reading.tensors))
    if not any(map(is_embedding, reading.tensors)):
        return "no embedding of tokens"
    tied = Checkpoint("", cast(Any, None), reading.tensors, reading.config).ties_embeddings
    stored = f"'{heads[0]}' is stored" if heads else "no head is stored"
    return f"config.json {'ties them' if tied else 'does not tie them'}; {stored}"


def _quantization(reading: FolderReading) -> str:
    for key in _QUANTIZED:
        stated = reading.config.get(key)
        if isinstance(stated, dict):
            table = cast(dict[str, Any], stated)
            method = table.get("quant_method") or table.get("mode") or ""
            bits = f"{table['bits']} bits" if "bits" in table else ""
            return " ".join(filter(None, (key, str(method), bits)))
    other = sorted({each.dtype for each in reading.tensors.values()} - FLOAT_DTYPES)
    return f"none stated; there are tensors of {', '.join(other)}" if other else "none"


def _prefix(names: list[str]) -> str:
    """What every name starts with, up to a dot; empty where that is nothing but one wrapper."""
    first = names[0].split(".")
    shared = 0
    while shared < len(first) - 1 and all(
        name.split(".", shared + 1)[: shared + 1] == first[: shared + 1] for name in names
    ):
        shared += 1
    return "".join(f"{part}." for part in first[:shared]) if len(names) > 1 else ""

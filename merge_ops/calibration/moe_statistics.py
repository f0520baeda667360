"""Statistics of a mixture's moe_experts as a file: what each did on calibration texts, by layer.

    layers.{l}.tokens       F64 (E,)    tokens that were routed to each moe_expert
    layers.{l}.weights      F64 (E,)    the router's weights of these, summed
    layers.{l}.saliency     F64 (E,)    mean over these tokens of weight × ‖output‖ (REAP)
    layers.{l}.distances    F64 (E, E)  between mean outputs over all tokens (HC-SMoE)
    layers.{l}.similarity   F64 (E, E)  cosine of the router's logits over all tokens (M-SMoE)
    metadata                format; key: what it was measured from (`moe_key`); model: its digest;
                            total: tokens in all; chosen: moe_experts that each of them went to;
                            content: the digest of the numbers, by which damage is found

E moe_experts; l is the number of each layer that has some. They are measured where models run
(eval_ops/running/mixtures/moe_saliency.py); here they are only read and written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.calibration.number_files import FileKind
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.errors import Fault, StatisticsError, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ronghe-moe-statistics-1"
KEY_VERSION = 1
"""Raised when the same model and texts give other statistics."""
MOST_BYTES = 1 << 30
"""Of a file: 100 layers of 512 moe_experts take 0.4 of it."""
_KIND = FileKind("statistics", "`ronghe moe-saliency` writes such a file", MOST_BYTES)
VECTORS, MATRICES = ("tokens", "weights", "saliency"), ("distances", "similarity")
PARTS = (*VECTORS, *MATRICES)
_NAME = re.compile(rf"layers\.(0|[1-9][0-9]{{0,4}})\.({'|'.join(PARTS)})")
_TOLD = ("key", "model", "total", "chosen", "content")


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What the E moe_experts of a layer did: vectors (E,) and matrices (E, E), all float64."""

    tokens: NDArray[np.float64]
    weights: NDArray[np.float64]
    saliency: NDArray[np.float64]
    distances: NDArray[np.float64]
    similarity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MoeStatistics:
    """Statistics of a mixture: `layers` by number, and the digest of the `model` they are of.

    `total` tokens were read, each of which went to `chosen` moe_experts in every layer. `key` says
    what they were measured from.
    """

    layers: Mapping[int, LayerStatistics]
    model: str
    key: str
    total: int
    chosen: int

    @property
    def experts(self) -> int:
        """Return the number of moe_experts of a layer; all layers have as many."""
        return len(next(iter(self.layers.values())).tokens)

    @property
    def digest(self) -> str:
        """Return the digest of the numbers, each as it is stored, and of what they are of."""
        hasher = blake3.blake3(json.dumps([self.model, self.total, self.chosen]).encode())
        for layer in sorted(self.layers):
            for part in PARTS:
                values = _array(self.layers[layer], part)
                hasher.update(json.dumps([layer, part, list(values.shape)]).encode())
                hasher.update(values.tobytes())
        return hasher.hexdigest()


def moe_key(model_digest: str, tokenizer_digest: str, texts: Sequence[str]) -> str:
    """Return the digest of what statistics are measured from; equal keys stand for equal ones."""
    told = [KEY_VERSION, model_digest, tokenizer_digest, list(texts)]
    return blake3.blake3(json.dumps(told).encode()).hexdigest()


def write_moe_statistics(path: Path, statistics: MoeStatistics) -> None:
    """Write statistics to a file, whole or not at all; what was there is replaced.

    Raises StatisticsError for what no mixture has, OutputError where it cannot be written.
    """
    faults = _number_faults(statistics.layers)
    if faults:
        raise StatisticsError(f"{path}: statistics are not written", faults)
    names = [(layer, part) for layer in sorted(statistics.layers) for part in PARTS]
    arrays = {each: _array(statistics.layers[each[0]], each[1]) for each in names}
    tensors = [
        OutputTensor(f"layers.{layer}.{part}", "F64", arrays[layer, part].shape)
        for layer, part in names
    ]
    told = {
        "format": FORMAT,
        "key": statistics.key,
        "model": statistics.model,
        "total": str(statistics.total),
        "chosen": str(statistics.chosen),
        "content": statistics.digest,
    }
    _KIND.write(path, tensors, told, (arrays[each].tobytes() for each in names))


def read_moe_statistics(path: Path, key: str | None = None) -> MoeStatistics:
    """Read a file of statistics and return what it holds.

    Given a `key` it must be measured from that. Raises MissingModelError where there is no file,
    CheckpointError where it is damaged, StatisticsError with every fault of a file that holds
    something else.
    """
    source = FolderSource(path.parent, path.name)
    entries, told = _KIND.head(path, source)
    faults = _told_faults(told, key)
    if not faults:
        faults = _entry_faults(entries)
    if faults:
        raise StatisticsError(str(path), faults)
    found: dict[int, dict[str, NDArray[np.float64]]] = {}
    for name in entries:
        entry = entries[name]
        raw = read_file(source, entry.file, entry.offset, entry.nbytes)
        values = np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(entry.shape)
        layer, part = _place(name)
        found.setdefault(layer, {})[part] = values
    layers = {layer: LayerStatistics(**found[layer]) for layer in sorted(found)}
    read = MoeStatistics(
        layers, told["model"], told["key"], int(told["total"]), int(told["chosen"])
    )
    faults = _number_faults(layers)
    if faults:
        raise StatisticsError(str(path), faults)
    _KIND.check_content(path, told["content"], read.digest)
    return read


def _array(layer: LayerStatistics, part: str) -> NDArray[np.float64]:
    return np.ascontiguousarray(getattr(layer, part), dtype="<f8")


def _place(name: str) -> tuple[int, str]:
    """The layer and the part of a tensor's name; −1 where it has none."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else (-1, "")


def _told_faults(told: Mapping[str, str], key: str | None) -> list[Fault]:
    if told.get("format") != FORMAT:
        problem = f"is {quoted(told.get('format'))}; it must be '{FORMAT}': this is no file of"
        return [Fault("metadata.format", f"{problem} statistics of moe_experts")]
    faults = [
        Fault(f"metadata.{name}", "is missing; write the file by `ronghe moe-saliency`")
        for name in _TOLD
        if not told.get(name)
    ]
    for name in ("total", "chosen"):
        if told.get(name) and not re.fullmatch(r"[1-9][0-9]{0,17}", told[name]):
            problem = f"is {quoted(told[name])}; it must be a whole number from 1 on"
            faults.append(Fault(f"metadata.{name}", problem))
    if key is not None and told.get("key") not in (None, "", key):
        problem = f"is {quoted(told['key'])}, and {key!r} is needed: these statistics are of"
        faults.append(Fault("metadata.key", f"{problem} another model or of other texts"))
    return faults


def _entry_faults(entries: Mapping[str, TensorEntry]) -> list[Fault]:
    """Everything wrong with names, dtypes and shapes."""
    faults = [
        Fault(f"tensor {quoted(name)}", f"is unknown; names are layers.L.{{{','.join(PARTS)}}}")
        for name in sorted(entries)
        if _place(name)[0] < 0
    ]
    layers = sorted({_place(name)[0] for name in entries} - {-1})
    if not layers:
        faults.append(Fault("", "holds no layer"))
    count = next(
        (entry.shape[0] for name, entry in sorted(entries.items()) if entry.shape and name), 1
    )
    for layer in layers:
        for part in PARTS:
            entry, name = entries.get(f"layers.{layer}.{part}"), f"layers.{layer}.{part}"
            wanted = (count,) if part in VECTORS else (count, count)
            if entry is None:
                faults.append(Fault(name, "is missing"))
            elif entry.dtype != "F64" or entry.shape != wanted or 0 in entry.shape:
                told = f"is {entry.dtype} {list(entry.shape)}; it must be F64 {list(wanted)}"
                faults.append(Fault(name, told))
    return faults


def _number_faults(layers: Mapping[int, LayerStatistics]) -> list[Fault]:
    """What no mixture's statistics can be: none, of several sizes, not finite, below zero."""
    if not layers:
        return [Fault("", "there is no layer with moe_experts")]
    count = len(next(iter(layers.values())).tokens)
    faults: list[Fault] = []
    for layer in sorted(layers):
        for part in PARTS:
            values = _array(layers[layer], part)
            name = f"layers.{layer}.{part}"
            wanted = (count,) if part in VECTORS else (count, count)
            if values.shape != wanted or 0 in values.shape:
                told = f"has the shape {list(values.shape)}; it must be {list(wanted)}"
                faults.append(Fault(name, told))
            elif not np.isfinite(values).all():
                faults.append(Fault(name, "has NaN or infinity"))
            elif part != "similarity" and (values < 0).any():
                faults.append(Fault(name, "has numbers below 0"))
    return faults

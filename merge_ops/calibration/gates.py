"""Gates of a mixture of experts as a file: one matrix a layer, one row a moe_expert.

    layers.{l}.gate   F32 (experts, hidden), for each layer l = 0 … L − 1; in mode `calibrate` for
                      each layer that has a router
    metadata          format; mode; key: what they were measured from (`gate_key`); content: the
                      digest of the numbers (`gates_digest`), by which damage is found

Rows are what `gate.weight` of a router is made of. They are measured where models run
(eval_ops/running/mixtures/gates.py); here they are only read and written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import blake3
import numpy as np

from merge_ops.calibration.number_files import FileKind
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.errors import Fault, StatisticsError, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Gates = Mapping[int, NDArray[np.float32]]
    """The rows of each layer, (experts, hidden), by the layer's number."""

FORMAT = "ronghe-gates-1"
KEY_VERSION = 1
"""Raised when the same base, prompts and mode give other gates."""
MOST_BYTES = 1 << 30
"""Of a file: 100 layers of 256 moe_experts with 8192 entries a row take 0.8 of it."""
FITTED = "calibrate"
"""The mode of rows that were fitted on texts; layers without a router have none."""
_KIND = FileKind("gates", "`ronghe gates` writes a file of gates", MOST_BYTES)
_NAME = re.compile(r"layers\.(0|[1-9][0-9]{0,4})\.gate")


class Prompts(NamedTuple):
    """What one moe_expert is for, and what it is not for, as texts in their order."""

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()


def gate_key(
    base_digest: str,
    tokenizer_digest: str,
    prompts: Sequence[tuple[Sequence[str], Sequence[str]]],
    mode: str,
) -> str:
    """Return the digest of what gates are measured from; equal keys stand for equal gates.

    `prompts` has (positive, negative) of each moe_expert in the order of the rows.
    """
    texts = [[list(positive), list(negative)] for positive, negative in prompts]
    told = [KEY_VERSION, base_digest, tokenizer_digest, texts, mode]
    return blake3.blake3(json.dumps(told).encode()).hexdigest()


def gates_digest(gates: Gates) -> str:
    """Return the digest of the numbers alone, each as it is stored."""
    hasher = blake3.blake3()
    for layer in sorted(gates):
        rows = np.ascontiguousarray(gates[layer], dtype="<f4")
        hasher.update(json.dumps([layer, list(rows.shape)]).encode())
        hasher.update(rows.tobytes())
    return hasher.hexdigest()


def write_gates(path: Path, gates: Gates, metadata: Mapping[str, str]) -> None:
    """Write gates to a file, whole or not at all; what was there is replaced.

    `metadata` has `mode` and `key`; format and content are added. Raises StatisticsError for gates
    that no router could have, OutputError where the file cannot be written.
    """
    faults = _faults_of(gates, metadata.get("mode") == FITTED)
    if faults:
        raise StatisticsError(f"{path}: gates are not written", faults)
    tensors = [
        OutputTensor(f"layers.{layer}.gate", "F32", gates[layer].shape) for layer in sorted(gates)
    ]
    told = {**metadata, "format": FORMAT, "content": gates_digest(gates)}
    rows = (np.ascontiguousarray(gates[layer], dtype="<f4").tobytes() for layer in sorted(gates))
    _KIND.write(path, tensors, told, rows)


def read_gates(
    path: Path,
    *,
    layers: int | None = None,
    experts: int | None = None,
    hidden: int | None = None,
    key: str | None = None,
) -> Gates:
    """Read a file of gates and return its rows by layer.

    Given `layers`, `experts`, `hidden` and `key`, the file must be of such a model and of these
    prompts. Raises MissingModelError where there is no file, CheckpointError where it is damaged,
    StatisticsError with every fault of a file that holds something else.
    """
    source = FolderSource(path.parent, path.name)
    entries, told = _KIND.head(path, source)
    fitted = told.get("mode") == FITTED
    faults = _entry_faults(entries, layers, experts, hidden, fitted)
    faults += _told_faults(told, key)
    if faults:
        raise StatisticsError(str(path), faults)
    gates: dict[int, NDArray[np.float32]] = {}
    for layer in sorted(_layer(name) for name in entries):
        entry = entries[f"layers.{layer}.gate"]
        raw = read_file(source, entry.file, entry.offset, entry.nbytes)
        gates[layer] = np.frombuffer(raw, dtype="<f4").astype(np.float32).reshape(entry.shape)
    faults = _faults_of(gates, fitted)
    if faults:
        raise StatisticsError(str(path), faults)
    if "content" in told:
        _KIND.check_content(path, told["content"], gates_digest(gates))
    return gates


def metadata_of(path: Path) -> Mapping[str, str]:
    """Read what a file of gates says of itself: format, mode, key, content.

    Raises as `read_gates` does.
    """
    _, told = _KIND.head(path, FolderSource(path.parent, path.name))
    faults = _told_faults(told, None)
    if faults:
        raise StatisticsError(str(path), faults)
    return told


def _layer(name: str) -> int:
    """The layer of a tensor's name; −1 where it has none."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else -1


def _told_faults(told: Mapping[str, str], key: str | None) -> list[Fault]:
    if told.get("format") != FORMAT:
        problem = (
            f"is {quoted(told.get('format'))}; it must be '{FORMAT}': this is no file of gates"
        )
        return [Fault("metadata.format", problem)]
    faults = [
        Fault(f"metadata.{name}", "is missing; write the file by `ronghe gates`")
        for name in ("mode", "key")
        if not told.get(name)
    ]
    if key is not None and told.get("key") not in (None, "", key):
        problem = (
            f"is {quoted(told['key'])}, and {key!r} is needed: these gates are of another base,"
            " other prompts or another mode; measure them again"
        )
        faults.append(Fault("metadata.key", problem))
    return faults


def _entry_faults(
    entries: Mapping[str, TensorEntry],
    layers: int | None,
    experts: int | None,
    hidden: int | None,
    gaps: bool,
) -> list[Fault]:
    """Everything wrong with names, dtypes and shapes."""
    faults = [
        Fault(f"tensor {quoted(name)}", "is no gate; the names are layers.0.gate, layers.1.gate, …")
        for name in sorted(entries)
        if _layer(name) < 0
    ]
    known = {layer: entry for name, entry in entries.items() if (layer := _layer(name)) >= 0}
    count = max(known, default=0) + 1 if layers is None else layers
    missing = [layer for layer in range(count) if layer not in known and not gaps]
    if missing:
        names = ", ".join(f"layers.{layer}.gate" for layer in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        faults.append(
            Fault("", f"lacks {names}{more}; there must be one for each of {count} layers")
        )
    faults += [
        Fault(
            f"layers.{layer}.gate", f"is beyond the {count} layers, 0 to {count - 1}, of the model"
        )
        for layer in sorted(known)
        if layer >= count
    ]
    return faults + _shape_faults(known, experts, hidden)


def _shape_faults(
    known: Mapping[int, TensorEntry], experts: int | None, hidden: int | None
) -> list[Fault]:
    faults: list[Fault] = []
    first = next((each.shape for _, each in sorted(known.items()) if len(each.shape) == 2), None)
    rows, columns = first or (1, 1)
    wanted = (rows if experts is None else experts, columns if hidden is None else hidden)
    for layer, entry in sorted(known.items()):
        if entry.dtype != "F32":
            faults.append(Fault(f"layers.{layer}.gate", f"is {entry.dtype}; it must be F32"))
        if entry.shape != wanted or 0 in entry.shape:
            told = f"has the shape {list(entry.shape)}; it must be {list(wanted)}"
            faults.append(Fault(f"layers.{layer}.gate", f"{told} (moe_experts, hidden size)"))
    return faults


def _faults_of(gates: Gates, gaps: bool) -> list[Fault]:
    """What no router's rows can be: none, of several shapes, NaN or infinite."""
    if not gates or (sorted(gates) != list(range(len(gates))) and not gaps):
        told = ", ".join(map(str, sorted(gates)[:10])) or "none"
        return [Fault("", f"has the layers {told}; there must be 0, 1, … without a gap")]
    faults: list[Fault] = []
    shape = gates[min(gates)].shape
    for layer in sorted(gates):
        rows = gates[layer]
        if rows.ndim != 2 or rows.shape != shape or 0 in rows.shape:
            problem = f"has the shape {list(rows.shape)}; all must be (moe_experts, hidden size)"
            faults.append(Fault(f"layers.{layer}.gate", problem))
            continue
        for bad in np.flatnonzero(~np.isfinite(rows).all(axis=1))[:1].tolist():
            problem = f"has NaN or infinity in the row of moe_expert {bad}; measure the gates again"
            faults.append(Fault(f"layers.{layer}.gate", problem))
    return faults

"""Orders of moe_experts and their neurons as a file, as they bring one mixture to another.

    layers.{n}.experts   I32 (E,)    which moe_expert of the model comes to each place
    layers.{n}.neurons   I32 (E, I)  which of its neurons comes to each place; absent where all of
                                     the layer's stay in their order
    metadata             format; key: what they were found from; content: the digest of the numbers

E moe_experts of I neurons; n counts the layers that have some, in the order of their names. Orders
are found where mixtures are aligned (arrangement/mixtures/aligned_experts.py); here they are only
read and written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.calibration.number_files import FileKind
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.errors import Fault, StatisticsError, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Order = NDArray[np.int64]
    Orders = Mapping[str, tuple[Order, Order]]
    """Of each layer, by what stands before its names: moe_experts (E,), and neurons (E, I)."""

FORMAT = "ronghe-moe-orders-1"
MOST_BYTES = 1 << 30
"""Of a file: 61 layers of 256 moe_experts with 2048 neurons take 0.13 of it."""
_KIND = FileKind("orders", "a merge with `align: base` finds them", MOST_BYTES)


def write_orders(path: Path, orders: Orders, key: str) -> None:
    """Write orders to a file, whole or not at all; what was there is replaced.

    Raises OutputError where it cannot be written.
    """
    arrays = _arrays(orders)
    tensors = [OutputTensor(name, "I32", each.shape) for name, each in arrays.items()]
    told = {"format": FORMAT, "key": key, "content": _digest(arrays)}
    _KIND.write(path, tensors, told, (each.tobytes() for each in arrays.values()))


def read_orders(path: Path, key: str, shapes: Mapping[str, tuple[int, int]]) -> Orders:
    """Read the orders that were found from what `key` stands for.

    `shapes` has (E, I) of each layer. Raises MissingModelError where there is no file,
    CheckpointError where it is damaged, StatisticsError where it holds something else.
    """
    source = FolderSource(path.parent, path.name)
    entries, told = _KIND.head(path, source)
    faults = [
        Fault(f"metadata.{name}", f"is {quoted(told.get(name))}; it must be '{wanted}'")
        for name, wanted in (("format", FORMAT), ("key", key))
        if told.get(name) != wanted
    ]
    wanted: dict[str, tuple[int, ...]] = {}
    for number, (experts, inner) in enumerate(shapes.values()):
        wanted[f"layers.{number}.experts"] = (experts,)
        if f"layers.{number}.neurons" in entries:
            wanted[f"layers.{number}.neurons"] = (experts, inner)
    there = {name: (each.dtype, each.shape) for name, each in entries.items()}
    if there != {name: ("I32", shape) for name, shape in wanted.items()}:
        faults.append(Fault("", "has other layers than the mixture that is aligned"))
    if faults:
        raise StatisticsError(str(path), faults)
    arrays: dict[str, NDArray[np.int32]] = {}
    for name, entry in entries.items():
        raw = read_file(source, entry.file, entry.offset, entry.nbytes)
        arrays[name] = np.frombuffer(raw, dtype="<i4").reshape(entry.shape)
        if not _is_order(arrays[name]):
            faults.append(Fault(name, "is no order: each place must come once"))
    if faults:
        raise StatisticsError(str(path), faults)
    _KIND.check_content(path, told.get("content", ""), _digest(arrays))
    found: dict[str, tuple[Order, Order]] = {}
    for number, (at, shape) in enumerate(shapes.items()):
        neurons = arrays.get(f"layers.{number}.neurons", _as_they_are(shape))
        experts = arrays[f"layers.{number}.experts"]
        found[at] = experts.astype(np.int64), neurons.astype(np.int64)
    return found


def _arrays(orders: Orders) -> dict[str, NDArray[np.int32]]:
    """The tensors of a file by their names."""
    found: dict[str, NDArray[np.int32]] = {}
    for number, (experts, neurons) in enumerate(orders.values()):
        found[f"layers.{number}.experts"] = np.ascontiguousarray(experts, dtype="<i4")
        if (neurons != _as_they_are(neurons.shape)).any():
            found[f"layers.{number}.neurons"] = np.ascontiguousarray(neurons, dtype="<i4")
    return found


def _as_they_are(shape: tuple[int, ...]) -> NDArray[np.int32]:
    return np.broadcast_to(np.arange(shape[1], dtype="<i4"), shape)


def _is_order(values: NDArray[np.int32]) -> bool:
    """Whether each row has every place once."""
    places = np.broadcast_to(np.arange(values.shape[-1], dtype=np.int32), values.shape)
    return np.array_equal(np.sort(values, axis=-1), places)


def _digest(arrays: Mapping[str, NDArray[np.int32]]) -> str:
    hasher = blake3.blake3()
    for name in sorted(arrays):
        hasher.update(json.dumps([name, list(arrays[name].shape)]).encode())
        hasher.update(arrays[name].tobytes())
    return hasher.hexdigest()

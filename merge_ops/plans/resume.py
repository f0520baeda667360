"""Going on where a merge was cut off: tensors that were finished are copied, not computed again.

A plan decides every byte it writes and where, so an unfinished merge of the same plan holds, up to
where it came, exactly what this one will write. How far it came, and that the bytes are good, is
the business of whoever keeps the files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.plans.plan import Plan
from merge_ops.plans.steps import Merge, Reuse, Step


@dataclass(frozen=True)
class Remains:
    """Remains are what an unfinished merge of one coefficient left.

    They hold, for each file, the ends of the tensors that were finished.
    """

    source: ByteSource
    reached: Mapping[str, Collection[int]]


def tensor_places(plan: Plan) -> list[TensorEntry]:
    """Return where each tensor of the plan will lie, in file order."""
    places: list[TensorEntry] = []
    for shard in plan.shards:
        position = len(shard.header)
        for tensor in shard.tensors:
            place = TensorEntry(tensor.dtype, tensor.shape, shard.file, position, tensor.nbytes)
            places.append(place)
            position += tensor.nbytes
    return places


def resuming(plan: Plan, remains: Sequence[Remains | None]) -> Plan:
    """Return the plan that copies each tensor that was finished for every coefficient.

    `remains` follows the order of the plan's coefficients. The result and its digests stay the
    same.
    """
    found = [each for each in remains if each is not None]
    if len(found) < len(plan.coefficients):
        return plan
    pairs = zip(plan.steps, tensor_places(plan), strict=True)
    return dataclasses.replace(plan, steps=tuple(_copied(*pair, found) for pair in pairs))


def _copied(step: Step, entry: TensorEntry, found: Sequence[Remains]) -> Step:
    end = entry.offset + entry.nbytes
    finished = all(end in each.reached.get(entry.file, ()) for each in found)
    if not isinstance(step, Merge) or not entry.nbytes or not finished:
        return step
    parts = tuple(
        Stored(Checkpoint("an unfinished merge", each.source, {}, {}), step.output.name, entry)
        for each in found
    )
    return Reuse(step, parts)

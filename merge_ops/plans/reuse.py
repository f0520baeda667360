"""What need not be merged again: tensors that come out as they did in an earlier checkpoint.

A tensor of a result is decided by the bytes of its input tensors, the resolved parameters, the
method's version and what is written. All that together is its key. Where an earlier checkpoint was
made under the same key, its bytes are copied, so that after an upstream change in a few tensors
only those are computed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import blake3

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.tensor_sources import Stored, TensorSource
from merge_ops.plans.plan import PLAN_VERSION, Plan, PlannedTensor

KEYS_VERSION = 1
RUN = 4 << 20
Digests = Mapping[str, str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Earlier:
    """An earlier checkpoint of the same kind, and the keys of its tensors."""

    checkpoint: Checkpoint
    keys: Mapping[str, str]


def tensor_digests(checkpoint: Checkpoint, progress: Progress | None = None) -> dict[str, str]:
    """The BLAKE3 of every stored tensor's dtype, shape and bytes, by name. Reads all of them once.

    Tensors that are computed while they are read have none. Raises OSError where a file cannot be
    read.
    """
    found: dict[str, str] = {}
    stored = {n: e for n, e in checkpoint.tensors.items() if n not in checkpoint.overlays}
    done, whole = 0, sum(entry.nbytes for entry in stored.values())
    buffer = memoryview(bytearray(RUN))
    for name, entry in stored.items():
        hasher = blake3.blake3(json.dumps([entry.dtype, list(entry.shape)]).encode())
        for start in range(0, entry.nbytes, RUN):
            part = buffer[: min(RUN, entry.nbytes - start)]
            checkpoint.source.read_into(entry.file, entry.offset + start, part)
            hasher.update(part)
        found[name] = hasher.hexdigest()
        done += entry.nbytes
        if progress:
            progress(done, whole)
    return found


def tensor_keys(plan: Plan, digests: Mapping[str, Digests]) -> tuple[dict[str, str], ...]:
    """For every coefficient the key of each tensor, by name.

    `digests` are `tensor_digests` by model. Tensors whose inputs are not all known, or whose method
    measures the whole model, have none.
    """
    keys: tuple[dict[str, str], ...] = tuple({} for _ in plan.coefficients)
    for tensor in plan.tensors:
        sources = [_content(source, digests) for source in tensor.sources]
        if None in sources:
            continue
        models = [source.model for source in tensor.inputs] if plan.method.random else None
        for position, table in enumerate(keys):
            parameters = tensor.parameters[position] if tensor.parameters else None
            if parameters is not None and plan.method.measures_model(parameters):
                continue
            identity = {
                "versions": [KEYS_VERSION, PLAN_VERSION],
                "method": [*plan.method.identity, plan.arithmetic],
                "random": [plan.recipe.seed, models] if plan.method.random else None,
                "does": [tensor.action, tensor.base is not None],
                "output": dataclasses.astuple(tensor.output),
                "sources": sources,
                "parameters": dataclasses.asdict(parameters) if parameters is not None else None,
            }
            text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
            table[tensor.output.name] = blake3.blake3(text.encode()).hexdigest()
    return keys


def _content(source: TensorSource, digests: Mapping[str, Digests]) -> object | None:
    """What a source's values follow from; a computed one goes by its whole models."""
    if isinstance(source, Stored):
        known = digests.get(source.checkpoint.name)
        return known.get(source.name) if known else None
    return source.identity if all(part.checkpoint.digest for part in source.parts) else None


def reusing(
    plan: Plan, keys: Sequence[Mapping[str, str]], earlier: Sequence[Earlier | None]
) -> Plan:
    """The plan with tensors copied that an earlier checkpoint of every coefficient has already.

    `keys` and `earlier` follow the plan's coefficients. Results and digests are the plan's own.
    """
    found = [each for each in earlier if each is not None]
    if len(found) < len(plan.coefficients):
        return plan
    return dataclasses.replace(
        plan, work=tuple(_copied(tensor, keys, found) or tensor for tensor in plan.tensors)
    )


def _copied(
    tensor: PlannedTensor, keys: Sequence[Mapping[str, str]], earlier: Sequence[Earlier]
) -> PlannedTensor | None:
    """The tensor as a copy of the earlier ones; None where any of them differs."""
    name, parts = tensor.output.name, list[Stored]()
    for own, each in zip(keys, earlier, strict=True):
        entry = each.checkpoint.tensors.get(name)
        if entry is None or name not in own or each.keys.get(name) != own[name]:
            return None
        if (entry.dtype, entry.shape) != (tensor.output.dtype, tensor.output.shape):
            return None
        parts.append(Stored(each.checkpoint, name, entry))
    return dataclasses.replace(
        tensor, action="reuse", base=None, inputs=tuple(parts), span="element"
    )

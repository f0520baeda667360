"""What need not be merged again: tensors that come out as they did in an earlier checkpoint.

A tensor of a result is decided by the bytes of its input tensors, the resolved parameters, the
method's version and what is written. All that together is its key. Where an earlier checkpoint was
made under the same key, its bytes are copied, so that after an upstream change in a few tensors
only those are computed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import blake3

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource
from merge_ops.plans.plan import PLAN_VERSION, Plan
from merge_ops.plans.steps import Copy, Merge, Reuse
from merge_ops.progress import Progress

KEYS_VERSION = 1
RUN = 4 << 20
Digests = Mapping[str, str]


@dataclass(frozen=True)
class Earlier:
    """An `Earlier` holds an earlier checkpoint of the same kind and the keys of its tensors."""

    checkpoint: Checkpoint
    keys: Mapping[str, str]


def tensor_digests(checkpoint: Checkpoint, progress: Progress | None = None) -> dict[str, str]:
    """Return the BLAKE3 of every stored tensor's dtype, shape and bytes, by name.

    Reads every stored tensor once. Tensors that are computed while they are read have no digest.
    Raises OSError where a file cannot be read.
    """
    digests: dict[str, str] = {}
    stored = {n: e for n, e in checkpoint.tensors.items() if n not in checkpoint.overlays}
    done, whole = 0, sum(entry.nbytes for entry in stored.values())
    buffer = memoryview(bytearray(RUN))
    for name, entry in stored.items():
        hasher = blake3.blake3(json.dumps([entry.dtype, list(entry.shape)]).encode())
        for start in range(0, entry.nbytes, RUN):
            part = buffer[: min(RUN, entry.nbytes - start)]
            checkpoint.source.read_into(entry.file, entry.offset + start, part)
            hasher.update(part)
        digests[name] = hasher.hexdigest()
        done += entry.nbytes
        if progress:
            progress(done, whole)
    return digests


def tensor_keys(plan: Plan, digests: Mapping[str, Digests]) -> tuple[dict[str, str], ...]:
    """Return for every coefficient the key of each tensor, by name.

    `digests` holds the result of `tensor_digests` for each model. A tensor has no key where its
    inputs are not all known, or where its method measures the whole model.
    """
    keys: tuple[dict[str, str], ...] = tuple({} for _ in plan.coefficients)
    for step in (each.planned for each in plan.steps):
        sources = [_content(plan, source, digests) for source in step.sources]
        if None in sources:
            continue
        models: list[str] | None = None
        if plan.method.random:
            models = [source.model for source in step.inputs] if isinstance(step, Merge) else []
        on_base = isinstance(step, Copy) or step.base is not None
        for position, table in enumerate(keys):
            parameters = step.parameters[position] if step.parameters else None
            if parameters is not None and plan.method.measures_model(parameters):
                continue
            identity = {
                "versions": [KEYS_VERSION, PLAN_VERSION],
                "method": [*plan.method.identity, plan.arithmetic],
                "random": [plan.recipe.seed, models] if plan.method.random else None,
                "does": [step.action, on_base],
                "output": dataclasses.astuple(step.output),
                "sources": sources,
                "parameters": dataclasses.asdict(parameters) if parameters is not None else None,
            }
            text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
            table[step.output.name] = blake3.blake3(text.encode()).hexdigest()
    return keys


def _content(plan: Plan, source: TensorSource, digests: Mapping[str, Digests]) -> object | None:
    """What a source's values follow from; a computed one goes by its whole models."""
    if isinstance(source, Stored):
        known = digests.get(source.checkpoint.name)
        return known.get(source.name) if known else None
    known_parts = all(plan.digest_of(part.checkpoint) for part in source.parts)
    return source.identity(plan.digest_of) if known_parts else None


def reusing(
    plan: Plan, keys: Sequence[Mapping[str, str]], earlier: Sequence[Earlier | None]
) -> Plan:
    """Return the plan that copies what the earlier checkpoints already have.

    `keys` and `earlier` follow the order of the plan's coefficients. A tensor is copied only where
    an earlier checkpoint of every coefficient has it. The result and its digests stay the same.
    """
    found = [each for each in earlier if each is not None]
    if len(found) < len(plan.coefficients):
        return plan
    planned = [step.planned for step in plan.steps]
    return dataclasses.replace(
        plan, steps=tuple(_reused(step, keys, found) or step for step in planned)
    )


def _reused(
    step: Merge | Copy, keys: Sequence[Mapping[str, str]], earlier: Sequence[Earlier]
) -> Reuse | None:
    """The step as a copy of the earlier tensors; None where any of them differs."""
    name, parts = step.output.name, list[Stored]()
    for own, each in zip(keys, earlier, strict=True):
        entry = each.checkpoint.tensors.get(name)
        if entry is None or name not in own or each.keys.get(name) != own[name]:
            return None
        if (entry.dtype, entry.shape) != (step.output.dtype, step.output.shape):
            return None
        parts.append(Stored(each.checkpoint, name, entry))
    return Reuse(step, tuple(parts))

"""What slices leave of their models' tensors, apart from layers that are in no slice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from merge_ops.arrangement.completeness import named
from merge_ops.arrangement.one_slice import Slice
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.layer_counts import FURTHER_LAYERS, layer_count, section_of
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.model_parts import predicts_further_tokens
from merge_ops.checkpoints.names.ties import excluded
from merge_ops.errors import Caution, Fault


@dataclass(frozen=True)
class Leftovers:
    """Leftovers are tensors that are not written, by reason, with what is to be said of them."""

    excluded: Mapping[str, str] = field(default_factory=dict[str, str])
    cautions: tuple[Caution, ...] = ()
    faults: tuple[Fault, ...] = ()


def outside_not_written(
    donor: Checkpoint, slices: Sequence[Slice], written: Collection[str]
) -> Leftovers:
    """Return the tensors outside the layers that no slice writes.

    It is a fault where the model that gives the config has them, or a model that is merged with
    others; a model whose layers are only stacked may have a part of its own, which is named.
    """
    members = {each.name: (each, stacked) for stacked in slices for each in stacked.group.members}
    members.setdefault(donor.name, (donor, slices[0]))
    merged = {
        each.name
        for stacked in slices
        if len(stacked.group.members) > 1
        for each in stacked.group.members
    }
    reasons: dict[str, str] = {}
    cautions: list[Caution] = []
    faults: list[Fault] = []
    for name, (model, stacked) in members.items():
        skipped = excluded(model)
        own = [
            tensor
            for tensor in model.tensors
            if stacked.holds(tensor)
            and layer_of(tensor) is None
            and not predicts_further_tokens(tensor)
            and tensor not in skipped
            and tensor not in written
        ]
        if not own:
            continue
        others = [each for each, (other, _) in members.items() if own[0] not in other.tensors]
        if model is donor or name in merged:
            lacks = f"which {' and '.join(others)} lack{'s' if len(others) == 1 else ''}"
            lacks = lacks if others else "which no slice writes"
            faults.append(Fault(name, f"has {named(own)}, {lacks}; nothing is dropped silently"))
        else:
            reasons |= dict.fromkeys(own, f"only {name} has it, of which layers alone are taken")
            problem = f"has {named(own)} outside the layers, of which slices take nothing"
            cautions.append(Caution(name, problem, "They are not written"))
    return Leftovers(reasons, tuple(cautions), tuple(faults))


def further_not_written(slices: Sequence[Slice]) -> Leftovers:
    """Return the parts for multi-token prediction of all models, none of which is written."""
    reasons: dict[str, str] = {}
    cautions: list[Caution] = []
    for stacked in slices:
        for model in stacked.group.members:
            own = [name for name in stacked.further_of(model).values() if name not in reasons]
            if not own:
                continue
            count = layer_count(model.config, stacked.stack)
            section = section_of(model.config, count.sections) if count else model.config
            keys = [key for key in FURTHER_LAYERS if section.get(key)]
            follows = f"; {keys[0]} in config.json becomes 0" if keys else ""
            reasons |= dict.fromkeys(
                own, "multi-token prediction behind the layers, which not all models have"
            )
            cautions.append(
                Caution(
                    model.name,
                    f"has {named(own)} for multi-token prediction behind its"
                    f" {stacked.depths[model.name]} layers, which not all models of the last slice"
                    f" have: they are not written{follows}",
                    "Where that part is wanted, give every model of the last slice one",
                )
            )
    return Leftovers(reasons, tuple(cautions))

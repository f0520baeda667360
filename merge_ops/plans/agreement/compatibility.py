"""May these checkpoints be merged? Told from headers and configs, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from merge_ops.arrangement.completeness import named
from merge_ops.arrangement.groups import Place
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.layer_counts import LAYER_COUNTS
from merge_ops.checkpoints.header import FLOAT_DTYPES, TensorEntry
from merge_ops.checkpoints.names.name_alignment import named_alike
from merge_ops.checkpoints.names.name_layouts import SAVE_AGAIN, layout_difference
from merge_ops.checkpoints.names.placeholders import placeholder_fault
from merge_ops.checkpoints.names.tensor_names import is_vocabulary, shape_fault
from merge_ops.checkpoints.names.ties import excluded, find_source, has_source
from merge_ops.checkpoints.quantization import quantization_fault
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.plans.agreement.config_agreement import (
    config_cautions,
    config_faults,
    configured_first,
    joined_cautions,
)
from merge_ops.plans.agreement.vocabulary_agreement import (
    tokenized_first,
    tokenizer_faults,
    vocabulary_cautions,
    vocabulary_faults,
)

Vocabularies = Literal["equal", "reported", "merged"]

NOTHING: Mapping[str, TensorEntry] = {}


def check_compatible(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    vocabularies: Vocabularies = "equal",
    same_tensors: bool = True,
    weighed: bool = False,
) -> list[Caution]:
    """Compare every expert with `base` and return what should be looked at.

    It checks that no model is quantized, that all have the same tensors with the same shapes
    (unless `same_tensors` is false), that their configs give the weights the same meaning, and that
    their tokenizers have the same vocabulary. Another vocabulary is a fault where `vocabularies` is
    "equal", a caution where it is "reported", and nothing where it is "merged", as a recipe can ask
    for. `weighed` says that `check_weights` passed these very models.

    Raises CompatibilityError with everything that does not fit.
    """
    if not weighed:
        check_weights([base, *experts])
    experts = named_alike(base, experts)
    faults: list[Fault] = []
    cautions = [caution for each in (base, *experts) for caution in _precision_cautions(each)]
    described = configured_first(base, experts)
    worded = tokenized_first(base, experts)
    for expert in experts:
        if same_tensors:
            faults.extend(_tensor_faults(base, expert, vocabularies == "equal"))
            faults.extend(_depth_faults(base, expert))
        faults.extend(config_faults(described, expert))
        if vocabularies == "equal":
            faults.extend(tokenizer_faults(worded, expert))
        elif vocabularies == "reported":
            cautions.extend(
                Caution(fault.where, fault.problem, "") for fault in vocabulary_faults(base, expert)
            )
        if vocabularies != "merged":
            cautions.extend(vocabulary_cautions(worded, expert))
        cautions.extend(config_cautions(base, expert))
    if faults:
        raise _refusal([base, *experts], faults)
    return joined_cautions(cautions)


def _depth_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """A config that counts other layers than another one of the same tensors: some are unused."""
    for key in LAYER_COUNTS:
        ours, theirs = base.config.get(key), expert.config.get(key)
        if type(ours) is int and type(theirs) is int and ours != theirs:
            yield Fault(
                expert.name,
                f"has {key} {theirs} in config.json, {base.name} has {ours}, and both hold the same"
                " tensors: loading leaves some of them out; correct the one that is wrong",
            )


def check_weights(checkpoints: Sequence[Checkpoint]) -> None:
    """Check that every checkpoint holds weights: numbers that mean something, and all of them.

    Raises CompatibilityError with each that is quantized and each that holds placeholders.
    """
    unique = list({id(each): each for each in checkpoints}.values())
    found = [
        fault
        for each in unique
        for fault in (quantization_fault(each), placeholder_fault(each, unique))
    ]
    faults = [fault for fault in found if fault is not None]
    if faults:
        raise _refusal(unique, faults)


def check_layouts(places: Iterable[Place]) -> None:
    """Check that no model lacks tensors only because it is another layout than the others.

    It is for slices and modules, where each place has names of its own in each model. Raises
    CompatibilityError with one fault for each such model.
    """
    wanted: dict[str, tuple[Checkpoint, Checkpoint, list[str]]] = {}
    for place in places:
        group = place.group
        for model, name in zip(group.inputs if group else (), place.names, strict=False):
            if group is not None and not has_source(model, name):
                wanted.setdefault(model.name, (model, group.members[0], []))[2].append(name)
    faults: list[Fault] = []
    for model, leader, absent in wanted.values():
        others = [name for name in model.tensors if name not in leader.tensors]
        layout = layout_difference(leader.name, absent, others, (leader.tensors, model.tensors))
        if layout is not None and layout.ours == frozenset(absent):
            faults.append(Fault(model.name, f"{layout.problem}. {SAVE_AGAIN}"))
    if faults:
        raise _refusal([model for model, _, _ in wanted.values()], faults)


def _refusal(checkpoints: Sequence[Checkpoint], faults: Sequence[Fault]) -> CompatibilityError:
    names = ", ".join(checkpoint.name for checkpoint in checkpoints)
    return CompatibilityError(f"models {names} cannot be merged", faults)


def _precision_cautions(checkpoint: Checkpoint) -> Iterator[Caution]:
    double = [name for name, entry in checkpoint.tensors.items() if entry.dtype == "F64"]
    if double:
        yield Caution(
            checkpoint.name,
            f"holds {named(double)} in float64; a merge computes in float32, and what it merges"
            " has that precision",
            "Where all digits matter, leave these tensors out of the merge (passthrough)",
        )


def _lacking(model: Checkpoint, other: Checkpoint) -> list[str]:
    """The tensors of another model that a model has in no way."""
    names: Iterable[str] = other.tensors
    if not model.copies:
        names = [name for name in names if name not in model.tensors]
    return [name for name in names if not has_source(model, name)]


def _tensor_faults(base: Checkpoint, expert: Checkpoint, same_vocabulary: bool) -> Iterator[Fault]:
    skipped = {**excluded(base), **excluded(expert)}
    missing = [name for name in _lacking(expert, base) if name not in skipped]
    extra = [name for name in _lacking(base, expert) if name not in skipped]
    layout = layout_difference(base.name, missing, extra, (base.tensors, expert.tensors))
    if layout is not None:
        yield Fault(expert.name, f"{layout.problem}. {SAVE_AGAIN}")
        missing = [name for name in missing if name not in layout.ours]
        extra = [name for name in extra if name not in layout.theirs]
    if missing:
        yield Fault(expert.name, f"lacks {named(missing)}, which {base.name} has")
    if extra:
        yield Fault(
            expert.name,
            f"has {named(extra)}, which {base.name} lacks; nothing is dropped silently",
        )
    stored = expert.tensors if not (expert.copies or expert.overlays) else NOTHING
    for name, entry in base.tensors.items():
        other = None if name in skipped else stored.get(name) or find_source(expert, name)
        if other is None:
            continue
        if entry.shape != other.shape:
            if is_vocabulary(name) and not same_vocabulary and entry.shape[1:] == other.shape[1:]:
                continue
            yield shape_fault(base, expert, name, entry.shape, other.shape)
        elif (entry.dtype in FLOAT_DTYPES) != (other.dtype in FLOAT_DTYPES):
            yield Fault(
                expert.name, f"holds '{name}' as {other.dtype}, {base.name} as {entry.dtype}"
            )

"""May these checkpoints be merged? Told from headers and configs, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.tensor_names import is_vocabulary, shape_fault
from merge_ops.checkpoints.ties import excluded, find_source
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.plans.config_agreement import (
    config_cautions,
    config_faults,
    configured_first,
    joined_cautions,
)
from merge_ops.plans.vocabulary_agreement import (
    tokenized_first,
    tokenizer_faults,
    vocabulary_cautions,
    vocabulary_faults,
)

MAX_NAMED = 5
Vocabularies = Literal["equal", "reported", "merged"]


def check_compatible(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    vocabularies: Vocabularies = "equal",
    same_tensors: bool = True,
) -> list[Caution]:
    """Compare every expert with `base` and return what should be looked at.

    It checks that no model is quantized, that all have the same tensors with the same shapes
    (unless `same_tensors` is false), that their configs give the weights the same meaning, and that
    their tokenizers have the same vocabulary. Another vocabulary is a fault where `vocabularies` is
    "equal", a caution where it is "reported", and nothing where it is "merged", as a recipe can ask
    for.

    Raises CompatibilityError with everything that does not fit.
    """
    faults: list[Fault] = []
    cautions: list[Caution] = []
    for checkpoint in (base, *experts):
        faults.extend(_quantized(checkpoint))
    described = configured_first(base, experts)
    worded = tokenized_first(base, experts)
    for expert in experts:
        if same_tensors:
            faults.extend(_tensor_faults(base, expert, vocabularies == "equal"))
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
        names = ", ".join(checkpoint.name for checkpoint in (base, *experts))
        raise CompatibilityError(f"models {names} cannot be merged", faults)
    return joined_cautions(cautions)


def _quantized(checkpoint: Checkpoint) -> Iterator[Fault]:
    quantization = checkpoint.config.get("quantization_config")
    low = [name for name, entry in checkpoint.tensors.items() if entry.dtype.startswith("F8")]
    if quantization or low:
        kind = cast(dict[str, Any], quantization).get("quant_method") if quantization else "FP8"
        yield Fault(
            checkpoint.name,
            f"is quantized ({kind}); merge the unquantized checkpoint and quantize the result",
        )


def _tensor_faults(base: Checkpoint, expert: Checkpoint, same_vocabulary: bool) -> Iterator[Fault]:
    skipped = {**excluded(base), **excluded(expert)}
    missing = [
        name for name in base.tensors if name not in skipped and find_source(expert, name) is None
    ]
    extra = [
        name for name in expert.tensors if name not in skipped and find_source(base, name) is None
    ]
    if missing:
        yield Fault(expert.name, f"lacks {_named(missing)}, which {base.name} has")
    if extra:
        yield Fault(
            expert.name,
            f"has {_named(extra)}, which {base.name} lacks; nothing is dropped silently",
        )
    for name, entry in base.tensors.items():
        other = find_source(expert, name)
        if name in skipped or other is None:
            continue
        if entry.shape != other.shape:
            if is_vocabulary(name) and not same_vocabulary and entry.shape[1:] == other.shape[1:]:
                continue
            yield shape_fault(base, expert, name, entry.shape, other.shape)
        elif (entry.dtype in FLOAT_DTYPES) != (other.dtype in FLOAT_DTYPES):
            yield Fault(
                expert.name, f"holds '{name}' as {other.dtype}, {base.name} as {entry.dtype}"
            )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in sorted(names)[:MAX_NAMED])
    rest = len(names) - MAX_NAMED
    return f"{shown} and {rest} more tensors" if rest > 0 else shown

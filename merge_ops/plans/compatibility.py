"""May these checkpoints be merged? Told from headers and configs, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.tensor_names import (
    ASK_FOR_POLICY,
    excluded,
    find_source,
    is_vocabulary,
    shape_fault,
)
from merge_ops.checkpoints.vocabulary import equal_vocabularies, vocabulary
from merge_ops.errors import CompatibilityError, Fault

# Shapes do not show these, and with different values the same weights compute something else.
SAME_MEANING = ("model_type", "num_attention_heads", "num_key_value_heads", "head_dim")
# Merging goes on, but the expert was trained for another value.
WORTH_A_WARNING = ("rope_theta", "rope_scaling", "rms_norm_eps", "hidden_act", "sliding_window")
MAX_NAMED = 5
Vocabularies = Literal["equal", "reported", "merged"]


def check_compatible(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    vocabularies: Vocabularies = "equal",
    same_tensors: bool = True,
) -> list[str]:
    """Compare every expert with `base` and return the warnings.

    It checks that no model is quantized, that all have the same tensors with the same shapes
    (unless `same_tensors` is false), that their configs give the weights the same meaning, and that
    their tokenizers have the same vocabulary. Another vocabulary is a fault where `vocabularies` is
    "equal", a warning where it is "reported", and nothing where it is "merged", as a recipe can ask
    for.

    Raises CompatibilityError with everything that does not fit.
    """
    faults: list[Fault] = []
    warnings: list[str] = []
    for checkpoint in (base, *experts):
        faults.extend(_quantized(checkpoint))
    for expert in experts:
        if same_tensors:
            faults.extend(_tensor_faults(base, expert, vocabularies == "equal"))
        faults.extend(_config_faults(base, expert))
        if vocabularies == "equal":
            faults.extend(_tokenizer_faults(base, expert))
        elif vocabularies == "reported":
            warnings.extend(str(fault) for fault in _vocabulary_faults(base, expert))
        warnings.extend(_warnings(base, expert))
    if faults:
        names = ", ".join(checkpoint.name for checkpoint in (base, *experts))
        raise CompatibilityError(f"models {names} cannot be merged", faults)
    return warnings


def _quantized(checkpoint: Checkpoint) -> Iterator[Fault]:
    quantization = checkpoint.config.get("quantization_config")
    low = [name for name, entry in checkpoint.tensors.items() if entry.dtype.startswith("F8")]
    if quantization or low:
        kind = cast(dict[str, Any], quantization).get("quant_method") if quantization else "FP8"
        yield Fault(
            checkpoint.name,
            f"is quantized ({kind}); merge the unquantized checkpoint and quantize the result",
        )


def differing_vocabulary(base: Checkpoint, expert: Checkpoint) -> bool:
    """Return whether equal row numbers mean different tokens, or one model has more rows."""
    return next(_vocabulary_faults(base, expert), None) is not None


def _vocabulary_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    yield from _tokenizer_faults(base, expert)
    for name, entry in base.tensors.items():
        other = find_source(expert, name)
        if other is not None and is_vocabulary(name) and entry.shape != other.shape:
            yield shape_fault(base, expert, name, entry.shape, other.shape)


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


def _config_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    for key in SAME_MEANING:
        ours, theirs = base.config.get(key), expert.config.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            yield Fault(
                expert.name,
                f"has {key} {theirs!r} in config.json, {base.name} has {ours!r}; the same numbers"
                " mean different weights there",
            )


def _warnings(base: Checkpoint, expert: Checkpoint) -> Iterator[str]:
    for key in WORTH_A_WARNING:
        ours, theirs = base.config.get(key), expert.config.get(key)
        if key in base.config and key in expert.config and ours != theirs:
            yield (
                f"{expert.name} has {key} {theirs!r} in config.json, {base.name} has {ours!r};"
                " the merged checkpoint takes the latter"
            )


def _tokenizer_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    if equal_vocabularies(base, expert):
        return
    ours, theirs = vocabulary(base) or {}, vocabulary(expert) or {}
    differing = [token for token, number in ours.items() if theirs.get(token) != number]
    extra = [token for token in theirs if token not in ours]
    example = (differing or extra)[0]
    yield Fault(
        expert.name,
        f"has another vocabulary than {base.name}: {len(differing)} tokens moved or missing,"
        f" {len(extra)} new (first: {example!r}); embedding rows would be averaged across different"
        f" tokens. {ASK_FOR_POLICY}",
    )

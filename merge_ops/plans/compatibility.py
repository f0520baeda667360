"""May these checkpoints be merged? Told from headers and configs, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, cast

from merge_ops.checkpoints.checkpoint import Checkpoint, read_json
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.tensor_sources import TensorSource
from merge_ops.errors import CheckpointError, CompatibilityError, Fault

EMBEDDING_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
HEAD_NAMES = (
    "lm_head.weight",
    "output.weight",
    "output_layer.weight",
    "transformer.output_layer.weight",
)
# Shapes do not show these, and with different values the same weights compute something else.
SAME_MEANING = ("model_type", "num_attention_heads", "num_key_value_heads", "head_dim")
# Merging goes on, but the expert was trained for another value.
WORTH_A_WARNING = ("rope_theta", "rope_scaling", "rms_norm_eps", "hidden_act", "sliding_window")
MAX_NAMED = 5
# Other tensors with a row for each token: biases of heads, GPT-NeoX's and T5's names, Gemma 3n's.
FURTHER_VOCABULARY_NAMES = (
    "lm_head.bias",
    "final_logits_bias",
    "embed_in.weight",
    "embed_out.weight",
    "embed_tokens_per_layer.weight",
    "shared.weight",
)
ASK_FOR_POLICY = (
    "To merge them by token, say in the recipe which vocabulary the result has, for example"
    " `tokenizer: {source: union}`"
)
Vocabularies = Literal["equal", "reported", "merged"]


def is_embedding(name: str) -> bool:
    """Whether a tensor is the input embedding, by its name."""
    return name.endswith(EMBEDDING_NAMES)


def is_head(name: str) -> bool:
    """Whether a tensor is the output head, by its name."""
    return name in HEAD_NAMES or name.endswith(".lm_head.weight")


def is_vocabulary(name: str) -> bool:
    """Whether a tensor has a row for each token, by its name."""
    return is_embedding(name) or is_head(name) or name.endswith(FURTHER_VOCABULARY_NAMES)


def is_buffer(name: str) -> bool:
    """Buffers that old checkpoints carry and every loader recomputes."""
    return name.endswith((".rotary_emb.inv_freq", ".attn.masked_bias"))


def excluded(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Tensors that are not merged, each with the reason."""
    reasons: dict[str, str] = {}
    has_embedding = any(is_embedding(name) for name in checkpoint.tensors)
    for name in checkpoint.tensors:
        if is_buffer(name):
            reasons[name] = "a buffer that loading recomputes"
        elif is_head(name) and checkpoint.ties_embeddings and has_embedding:
            reasons[name] = "tied to the input embedding, which is written once"
    return reasons


def own_heads(checkpoints: Iterable[Checkpoint]) -> set[str]:
    """Output heads that any of the checkpoints keeps for itself, not tied to the embedding."""
    return {
        name
        for checkpoint in checkpoints
        for name in checkpoint.tensors
        if is_head(name) and name not in excluded(checkpoint)
    }


def find_source(checkpoint: Checkpoint, name: str) -> TensorSource | None:
    """The tensor `name`; for a missing output head of a tied checkpoint, its input embedding."""
    source = checkpoint.source_of(name)
    if source is None and is_head(name) and checkpoint.ties_embeddings:
        embedding = next((each for each in checkpoint.tensors if is_embedding(each)), name)
        return checkpoint.source_of(embedding)
    return source


def check_compatible(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    vocabularies: Vocabularies = "equal",
    same_tensors: bool = True,
) -> list[str]:
    """Compare every expert with `base`; returns warnings or raises CompatibilityError.

    Checked: the same tensors with the same shapes (unless told not to), float dtypes, configs that
    give the weights the same meaning, and tokenizers with the same vocabulary. Another vocabulary
    is a fault where `vocabularies` must be "equal", a warning where it is "reported", and nothing
    where the recipe has them "merged".
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
    """Whether rows of equal number stand for different tokens, or one has more rows."""
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


def shape_fault(
    base: Checkpoint, expert: Checkpoint, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> Fault:
    """That a tensor has another shape in an expert than in the base."""
    sizes = f"{list(theirs)}, but {list(ours)} in {base.name}"
    if is_vocabulary(name) and ours[1:] == theirs[1:]:
        return Fault(expert.name, f"has another vocabulary: '{name}' is {sizes}. {ASK_FOR_POLICY}")
    return Fault(expert.name, f"has another shape: '{name}' is {sizes}; only equal shapes merge")


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
    ours, theirs = vocabulary(base), vocabulary(expert)
    if ours is None or theirs is None or ours == theirs:
        return
    differing = [token for token, number in ours.items() if theirs.get(token) != number]
    extra = [token for token in theirs if token not in ours]
    example = (differing or extra)[0]
    yield Fault(
        expert.name,
        f"has another vocabulary than {base.name}: {len(differing)} tokens moved or missing,"
        f" {len(extra)} new (first: {example!r}); embedding rows would be averaged across different"
        f" tokens. {ASK_FOR_POLICY}",
    )


def vocabulary(checkpoint: Checkpoint) -> Mapping[str, int] | None:
    """Token → row, from tokenizer.json or vocab.json; None where the checkpoint has neither."""
    return _vocabulary_of_files(_Reader(checkpoint))


class _Reader:
    """Hashes by identity, so that one checkpoint's vocabulary is read once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._key = (checkpoint.source.location, *sorted(checkpoint.files.items()))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reader) and self.checkpoint is other.checkpoint


_MALFORMED = (ValueError, AttributeError, LookupError, TypeError, OverflowError)


@lru_cache(maxsize=32)
def _vocabulary_of_files(reader: _Reader) -> Mapping[str, int] | None:
    source, files = reader.checkpoint.source, reader.checkpoint.files
    if "tokenizer.json" in files:
        try:
            table = read_json(source, "tokenizer.json", files["tokenizer.json"])
            model = cast(dict[str, Any], table.get("model", {}))
            tokens = _tokens(model.get("vocab"))
            for added in cast(list[dict[str, Any]], table.get("added_tokens") or []):
                tokens[str(added["content"])] = int(added["id"])
        except (CheckpointError, *_MALFORMED):
            return None
        return tokens or None
    if "vocab.json" in files:
        try:
            return _tokens(read_json(source, "vocab.json", files["vocab.json"])) or None
        except (CheckpointError, *_MALFORMED):
            return None
    return None


def _tokens(vocab: object) -> dict[str, int]:
    if isinstance(vocab, dict):
        return {str(token): int(row) for token, row in cast(dict[str, Any], vocab).items()}
    if isinstance(vocab, list):  # unigram: [[token, score], …]
        return {str(pair[0]): row for row, pair in enumerate(cast(list[list[Any]], vocab))}
    return {}

"""What a tensor is, told from its name: embedding, output head, a row for each token, a buffer.

A head that is tied to the embedding is the embedding; a checkpoint may store it or leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of
from merge_ops.errors import Fault

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


def is_embedding(name: str) -> bool:
    """Return whether a tensor is the input embedding, by its name."""
    return name.endswith(EMBEDDING_NAMES)


def is_head(name: str) -> bool:
    """Return whether a tensor is the output head, by its name."""
    return name in HEAD_NAMES or name.endswith(".lm_head.weight")


def is_vocabulary(name: str) -> bool:
    """Return whether a tensor has a row for each token, by its name."""
    return is_embedding(name) or is_head(name) or name.endswith(FURTHER_VOCABULARY_NAMES)


def is_buffer(name: str) -> bool:
    """Return whether a tensor is a buffer of old checkpoints, by its name.

    Every loader computes these buffers anew.
    """
    return name.endswith((".rotary_emb.inv_freq", ".attn.masked_bias"))


def excluded(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return the tensors that are not merged, each with the reason."""
    reasons: dict[str, str] = {}
    has_embedding = any(is_embedding(name) for name in checkpoint.tensors)
    for name in checkpoint.tensors:
        if is_buffer(name):
            reasons[name] = "a buffer that loading recomputes"
        elif is_head(name) and checkpoint.ties_embeddings and has_embedding:
            reasons[name] = "tied to the input embedding, which is written once"
    return reasons


def own_heads(checkpoints: Iterable[Checkpoint]) -> set[str]:
    """Return the output heads that any of the checkpoints has untied from its embedding."""
    return {
        name
        for checkpoint in checkpoints
        for name in checkpoint.tensors
        if is_head(name) and name not in excluded(checkpoint)
    }


def find_source(checkpoint: Checkpoint, name: str) -> TensorSource | None:
    """Return the source of the tensor `name`, or None where the checkpoint lacks it.

    Where a tied checkpoint does not store its output head, the input embedding is the source.
    """
    source = source_of(checkpoint, name)
    if source is None and is_head(name) and checkpoint.ties_embeddings:
        embedding = next((each for each in checkpoint.tensors if is_embedding(each)), name)
        return source_of(checkpoint, embedding)
    return source


def shape_fault(
    base: Checkpoint, expert: Checkpoint, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> Fault:
    """Return the fault that a tensor has another shape in an expert than in the base."""
    sizes = f"{list(theirs)}, but {list(ours)} in {base.name}"
    if is_vocabulary(name) and ours[1:] == theirs[1:]:
        return Fault(expert.name, f"has another vocabulary: '{name}' is {sizes}. {ASK_FOR_POLICY}")
    return Fault(expert.name, f"has another shape: '{name}' is {sizes}; only equal shapes merge")

"""What a tensor is, told from its name: embedding, output head, a row for each token, a buffer.

A head that is tied to the embedding is the embedding; a checkpoint may store it or leave it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_ops.errors import Fault

if TYPE_CHECKING:
    from merge_ops.checkpoints.checkpoint import Checkpoint

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


def shape_fault(
    base: Checkpoint, expert: Checkpoint, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> Fault:
    """Return the fault that a tensor has another shape in an expert than in the base."""
    sizes = f"{list(theirs)}, but {list(ours)} in {base.name}"
    if is_vocabulary(name) and ours[1:] == theirs[1:]:
        return Fault(expert.name, f"has another vocabulary: '{name}' is {sizes}. {ASK_FOR_POLICY}")
    return Fault(expert.name, f"has another shape: '{name}' is {sizes}; only equal shapes merge")

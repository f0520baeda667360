"""What a key that stands in the wrong place is, and where it belongs."""

from __future__ import annotations

from collections.abc import Iterable

from merge_ops.errors import did_you_mean
from merge_ops.methods import MergeMethod
from merge_ops.methods.registry import METHODS

RECIPE_KEYS = (
    "name", "title", "description", "merge_method", "base_model", "models", "slices", "modules",
    "parameters", "dtype", "out_dtype", "tokenizer", "tokenizer_source", "chat_template", "experts",
    "sweep", "suite", "gate", "keep", "search", "seed", "soup", "verify",
    "accept_licence_conflicts", "protect", "align", "router", "convert", "window", "expand", "moe",
    "vocabulary", "texts",
)  # fmt: skip
MODEL_KEYS = ("model", "parameters")
MODULE_KEYS = ("models", "slices", "parameters")
SLICE_KEYS = ("sources", "base_model", "parameters")
SOURCE_KEYS = ("model", "layer_range", "parameters")
HARMLESS = ("normalize", "rescale")
MEMORY_SWITCH = "int8_mask"

OPTIONS = (
    "allow_crimes", "unsafe_truncate_embeddings", "transformers_cache", "lora_merge_cache",
    "lora_merge_dtype", "cuda", "device", "low_cpu_memory", "out_shard_size", "copy_tokenizer",
    "clone_tensors", "trust_remote_code", "lazy_unpickle", "write_model_card",
    "safe_serialization", "read_to_gpu", "multi_gpu", "num_threads", "gpu_rich", "async_write",
    "write_threads",
)  # fmt: skip
_ELSEWHERE = {
    "layer_range": "belongs to a source of `slices`; a model in `models` is merged whole",
    "sources": "belongs to an entry of `slices`",
    "model": "belongs to an entry of `models`, or to a source of `slices`",
    "filter": "belongs to a condition: `parameter: [{filter: mlp, value: 1}, {value: 0}]`",
    "value": "belongs to a condition: `parameter: [{filter: mlp, value: 1}, {value: 0}]`",
    "random_seed": "is `seed` here, at the top of the recipe",
    "residual_weight": "has no effect in mergekit either; remove it",
    "embed_slerp": "is of a mergekit that is gone; remove it",
    "tokens": "belongs below `tokenizer`",
    "pad_to_multiple_of": "belongs below `tokenizer`",
}


def unknown_key(key: object, known: Iterable[str], what: str) -> str:
    """Say that `key` is no key of `what` (`a recipe`, `a slice`), and where it belongs.

    Where it belongs nowhere, the nearest known key is named.
    """
    known = tuple(known)
    word = str(key)
    elsewhere = _ELSEWHERE.get(word)
    if elsewhere is None and word in OPTIONS:
        page = "docs/coming-from-mergekit.md says what stands for it here"
        elsewhere = f"is an option of mergekit's command line; {page}"
    if elsewhere is None and word in RECIPE_KEYS:
        elsewhere = "is one for the whole recipe; move it to the top"
    if elsewhere is None and _is_parameter(word):
        elsewhere = "is a parameter; write it below `parameters`"
    hint = f" It {elsewhere}." if elsewhere else did_you_mean(word, known)
    return f"is no key of {what}.{hint} Known: {', '.join(known)}"


def unknown_parameter(key: object, method: MergeMethod) -> str:
    """Say that `key` is no parameter of the method: where it belongs, or the nearest one."""
    specs, word = method.parameter_specs, str(key)
    if word == "parameters":
        return "stands within `parameters`; move what is below it one level up"
    elsewhere = _ELSEWHERE.get(word)
    if elsewhere is None and word in RECIPE_KEYS:
        elsewhere = "is a key of the recipe; move it to the top"
    if elsewhere is None and word in OPTIONS:
        elsewhere = "is an option of mergekit's command line; remove it"
    if elsewhere is not None:
        return f"is no parameter: it {elsewhere}"
    if _is_parameter(word):
        return f"has no effect on {method.name}; remove it"
    return f"is no parameter of {method.name}.{did_you_mean(word, specs)} Known: {', '.join(specs)}"


def _is_parameter(word: str) -> bool:
    """Whether some method has a parameter of this name."""
    return word == MEMORY_SWITCH or any(
        word in each.parameter_specs or word in each.unused for each in METHODS.values()
    )

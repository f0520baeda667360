"""Prefixes of tensor names: those that wrappers leave behind, and a base model's own.

`torch.compile`, FSDP, DDP, DeepSpeed and Lightning put a module around a model, and its state dict
then says `_orig_mod.model.…` or `module.model.…`. No loader expects such names, so they are taken
off when a checkpoint is opened; a renamed tensor is still read from where it lies.

A base model's prefix (`transformer.`, `bert.`) is another thing: `GPT2Model` saves `h.0.…`,
`GPT2LMHeadModel` saves `transformer.h.0.…`, and transformers loads either. Both are sound, and one
of a pair takes the names of the other.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import Caution, CheckpointError

# Parts that only wrappers have, wherever they stand: in front, or around each layer.
INNER_WRAPPERS = frozenset(
    {
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",
        "_fpw_module",  # FairScale's FSDP
        "_checkpoint_wrapped_module",  # activation checkpointing
        "_forward_module",  # Lightning Fabric and its DeepSpeed strategy
    }
)
# What could be a module's own name. It counts where every tensor of the model starts with it: no
# model has one module alone, called `module`, around everything.
OUTER_WRAPPERS = ("module.", "state_dict.", "model_state_dict.", "base_model.model.")
# Lightning calls the model `model`, as transformers calls the body of most. It is Lightning's where
# every tensor has it, and what belongs outside or at the start of a body lies inside.
LIGHTNING = "model."
INSIDE_LIGHTNING = (
    "lm_head.", "model.layers.", "model.embed_tokens.", "model.encoder.", "model.decoder.",
    "bert.", "roberta.", "distilbert.", "albert.", "electra.", "gpt_neox.",
)  # fmt: skip
# Names of a body inside a model with a head, as transformers' `base_model_prefix` has them.
BASE_MODEL_PREFIXES = frozenset(
    {
        "model.", "transformer.", "bert.", "roberta.", "distilbert.", "albert.", "electra.",
        "deberta.", "gpt_neox.", "xlm_roberta.", "esm.", "vit.", "clip.", "backbone.", "encoder.",
        "decoder.", "wav2vec2.", "hubert.", "swin.", "convnext.", "resnet.", "mamba.",
    }
)  # fmt: skip
# Wrappers lie in one another, but not deeper than this; a name of a stranger may repeat one a
# million times.
MAX_WRAPPERS = 8
ADAPTER_PARTS = (".lora_", ".base_layer.", ".original_module.", ".modules_to_save.")


def wrapper_prefix(names: Collection[str]) -> str:
    """Return the parts of names that wrappers have put there, each with its dot, or "".

    `module._orig_mod.` says that both were found, the outer one first.
    """
    return "".join(_unwrapped(names)[1])


def without_wrappers(checkpoint: Checkpoint, inside: str = "") -> Checkpoint:
    """Return the checkpoint with the names that its tensors had before they were wrapped.

    It has a caution then. `inside` is a prefix that every name has by rights, as an adapter's have
    `base_model.model.`. Raises CheckpointError where two tensors would have one name.
    """
    renamed, taken = _unwrapped(checkpoint.tensors, inside, "auto_map" in checkpoint.config)
    if not taken:
        return checkpoint
    tensors = {new: checkpoint.tensors[old] for old, new in renamed.items()}
    if len(tensors) < len(renamed):
        new = next(new for old, new in renamed.items() if old != new and new in checkpoint.tensors)
        raise CheckpointError(
            f"{checkpoint.source.location}: holds '{new}' both plain and with the prefix of a"
            f" wrapper ({', '.join(taken)}); save the model again, without the wrapper"
        )
    caution = Caution(
        checkpoint.name,
        f"was saved from a wrapped model: its tensors' names hold '{''.join(taken)}', which no"
        " loader expects, and it was taken off",
        "Save the inner model (`unwrap_model`, `_orig_mod`, `module`) where others shall load it",
    )
    cautions = (*checkpoint.cautions, caution)
    return dataclasses.replace(checkpoint, tensors=tensors, cautions=cautions)


def _unwrapped(
    names: Collection[str], inside: str = "", own_code: bool = False
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Each name with its plain one, and what was taken off, from the outside in."""
    plain = {name: name for name in names}
    taken: dict[str, None] = {}
    for _ in range(MAX_WRAPPERS if plain else 0):
        outer = _outer(list(plain.values()), own_code)
        outer = outer if outer != inside else ""
        if outer:
            taken[outer] = None
            plain = {name: each.removeprefix(outer) for name, each in plain.items()}
            continue
        parts = {part: None for each in plain.values() for part in each.split(".")[:-1]}
        inner = [part for part in parts if part in INNER_WRAPPERS]
        if not inner:
            break
        taken |= {f"{part}.": None for part in inner}
        plain = {name: without_inner_wrappers(each) for name, each in plain.items()}
    return plain, tuple(taken)


def without_inner_wrappers(name: str) -> str:
    """Return a tensor's or a module's name without the parts that only wrappers have."""
    *parts, last = name.split(".")
    return ".".join([*(part for part in parts if part not in INNER_WRAPPERS), last])


def _outer(names: Collection[str], own_code: bool) -> str:
    for prefix in OUTER_WRAPPERS:
        if all(name.startswith(prefix) and name != prefix for name in names):
            is_adapted = any(part in f".{name}" for name in names for part in ADAPTER_PARTS)
            return "" if is_adapted and prefix == "base_model.model." else prefix
    if own_code or not all(name.startswith(LIGHTNING) for name in names):
        return ""
    inside = any(name.removeprefix(LIGHTNING).startswith(INSIDE_LIGHTNING) for name in names)
    return LIGHTNING if inside else ""


def body_renaming(
    ours: Collection[str], theirs: Collection[str], known_prefixes_only: bool = False
) -> Mapping[str, str]:
    """Return new names for those of `theirs` that differ from `ours` by one prefix only.

    The prefix of a model's body is taken off or put before, whichever brings more names together;
    at least half of the names of the shorter side must be. Names that agree already stay, and so do
    all where a new name is taken. `known_prefixes_only` allows the prefixes of transformers alone:
    for an adapter, which names few modules. The result is empty where nothing is to be renamed.
    """
    apart = [name for name in theirs if name not in ours]
    best: dict[str, str] = {}
    least = -(-min(len(ours), len(theirs)) // 2)
    for prefix, take_off in _candidates(ours, apart, least):
        if known_prefixes_only and prefix not in BASE_MODEL_PREFIXES:
            continue
        found: dict[str, str] = {}
        for name in apart:
            new = name[len(prefix) :] if take_off else prefix + name
            if (name.startswith(prefix) or not take_off) and new in ours:
                found[name] = new
        if len(found) > len(best) and not any(new in theirs for new in found.values()):
            best = found
    return best if len(best) >= least else {}


def _candidates(
    ours: Iterable[str], apart: Iterable[str], least: int
) -> Iterator[tuple[str, bool]]:
    """Prefixes of one or two parts that so many names have; whether each is taken off or put on."""
    for names, take_off in ((apart, True), (ours, False)):
        counts: Counter[str] = Counter()
        for name in names:
            parts = name.split(".", 2)
            counts.update(".".join(parts[:end]) + "." for end in range(1, len(parts)))
        yield from ((prefix, take_off) for prefix, count in counts.items() if count >= least)

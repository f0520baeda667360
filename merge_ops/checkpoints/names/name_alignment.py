"""One model with the names and buffers of another: what two loaders would make equal anyway.

`GPT2Model` saves `h.0.…`, `GPT2LMHeadModel` saves `transformer.h.0.…`; an old CLIP has
`position_ids`, a new one computes them. Neither is a difference of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.buffers import is_buffer, is_counter, is_obsolete
from merge_ops.checkpoints.names.name_prefixes import body_renaming

LEFT_OUT = "a buffer that loading recomputes; the model that gives the names has none"


def named_alike(base: Checkpoint, models: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Return the models with the names that `base` has for the same tensors, and with its buffers.

    Names that differ by the prefix of the body alone become the base's. A buffer of the base is
    lent to each model, whether it has one or not, so that the base's values are copied and never
    averaged. A buffer that the base lacks is left out, and stands in `left_out`. A counter of steps
    is treated as a buffer: it need not agree, and the base's is as good as any.
    """
    lent: dict[str, TensorSource] = {}
    for name, entry in base.tensors.items():
        source = source_of(base, name) if _is_kept_buffer(name, entry) else None
        if source is not None:
            lent[name] = source
    return [model if model is base else _named_like(base, lent, model) for model in models]


def _named_like(
    base: Checkpoint, lent: Mapping[str, TensorSource], model: Checkpoint
) -> Checkpoint:
    renaming = {} if model.tensors.keys() == base.tensors.keys() else _renaming(base, model)
    tensors = {renaming.get(name, name): entry for name, entry in model.tensors.items()}
    overlays = {renaming.get(name, name): source for name, source in model.overlays.items()}
    left_out = {
        name: LEFT_OUT
        for name in tensors.keys() - base.tensors.keys()
        if _is_kept_buffer(name, tensors[name])
    }
    if not (renaming or lent or left_out):
        return model
    for name in left_out:
        del tensors[name]
        overlays.pop(name, None)
    return dataclasses.replace(
        model,
        tensors=tensors | {name: base.tensors[name] for name in lent},
        overlays={**overlays, **lent},
        left_out={**model.left_out, **left_out},
    )


def _is_kept_buffer(name: str, entry: TensorEntry) -> bool:
    return is_counter(name) or (is_buffer(name, entry) and not is_obsolete(name))


def _renaming(base: Checkpoint, model: Checkpoint) -> dict[str, str]:
    weights = [
        [name for name, entry in each.tensors.items() if not is_buffer(name, entry)]
        for each in (base, model)
    ]
    ours, theirs = map(set, weights)
    if not ours - theirs or not theirs - ours:
        return {}
    found = dict(body_renaming(ours, theirs))
    if found:  # buffers lie in the body too
        old, new = next(iter(found.items()))
        for name in model.tensors.keys() - theirs:
            other = _moved(name, old, new)
            if other is not None and other not in model.tensors:
                found[name] = other
    return found


def _moved(name: str, old: str, new: str) -> str | None:
    """A name with the prefix changed as `old` became `new`."""
    if old.endswith(new):
        prefix = old.removesuffix(new)
        return name.removeprefix(prefix) if name.startswith(prefix) else None
    return new.removesuffix(old) + name

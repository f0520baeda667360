"""Do layers of several models make one stack? Told from headers.

One config.json describes the result, that of the model that gives it. So a part of a layer has one
shape over the whole stack, unless it varies in that model too, or a list by layer in its config
says so (DeciLM, OpenELM); and what lies outside the layers fits it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from merge_ops.arrangement.completeness import named
from merge_ops.arrangement.groups import Place
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.tensor_names import is_head, is_vocabulary
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.errors import Fault

_SIZES = re.compile(r"intermediate|ffn|heads|block_configs|dims?$|multipliers|experts")
_NORM = re.compile(r"norm|(?:^|\.)ln_")

Parts = Mapping[str, tuple[int, ...]]
"""The shapes of one layer's tensors, by their names within the layer."""


def stack_faults(
    stack: str, reference: Checkpoint, origins: Sequence[tuple[Checkpoint, int]]
) -> Iterator[Fault]:
    """Yield, once for each model, why its layers are none of a stack that `reference` describes."""
    expected = _layers(reference, stack)
    if not expected:
        return
    whole = frozenset[str]().union(*expected.values())
    always = whole.intersection(*expected.values())
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for parts in expected.values():
        for part, shape in parts.items():
            shapes.setdefault(part, set()).add(shape)
    varied = _has_sizes_by_layer(reference.config, len(expected))
    for model in dict.fromkeys(each.name for each, _ in origins if each is not reference):
        checkpoint = next(each for each, _ in origins if each.name == model)
        layers = _layers(checkpoint, stack)
        numbers = sorted({number for each, number in origins if each.name == model})
        for number in numbers:
            parts, at = layers.get(number, {}), f"{stack}.{number}."
            extra, lacking = parts.keys() - whole, always - parts.keys()
            other = next(
                (
                    part
                    for part, shape in sorted(parts.items())
                    if len(shapes.get(part, ())) == 1
                    and shape not in shapes[part]
                    and (not varied or _is_norm(part, shape))
                ),
                None,
            )
            if other is not None:
                (ours,) = shapes[other]
                yield Fault(
                    model,
                    f"has another shape: '{at}{other}' is {list(parts[other])}, but {list(ours)} in"
                    f" the layers of {reference.name}, whose config.json describes the result and"
                    " can say only one size for all layers of a stack",
                )
            if extra:
                problem = f"has {named(at + part for part in extra)}, which no layer of"
                yield Fault(model, f"{problem} {reference.name} has; its config.json tells of none")
            if lacking:
                problem = f"lacks {named(at + part for part in lacking)}, which every layer of"
                yield Fault(model, f"{problem} {reference.name} has")
            if other is not None or extra or lacking:
                break


def outside_faults(
    reference: Checkpoint, places: Iterable[Place], by_token: bool
) -> Iterator[Fault]:
    """Yield which tensors outside the layers do not fit the model that gives the config.

    Where tokens are aligned (`by_token`), numbers of rows may differ.
    """
    for place in places:
        group = place.group
        leader = group.members[0] if group else reference
        if leader is reference:
            continue
        ours, theirs = (find_source(each, place.base_name) for each in (reference, leader))
        if theirs is None:
            continue
        if ours is None:
            if not is_head(place.base_name):
                problem = f"has '{place.base_name}', which {reference.name} lacks; its config.json"
                yield Fault(
                    leader.name, f"{problem} describes the result and tells of no such part"
                )
            continue
        rows = by_token and is_vocabulary(place.base_name)
        if ours.shape[rows:] != theirs.shape[rows:]:
            yield Fault(
                leader.name,
                f"has another shape: '{place.base_name}' is {list(theirs.shape)}, but"
                f" {list(ours.shape)} in {reference.name}, whose config.json describes the result",
            )


def _layers(checkpoint: Checkpoint, stack: str) -> dict[int, Parts]:
    skipped = excluded(checkpoint)
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, entry in checkpoint.tensors.items():
        place = layer_of(name)
        if place is not None and place[0] == stack and name not in skipped:
            part = name[len(f"{stack}.{place[1]}.") :]
            layers.setdefault(place[1], {})[part] = entry.shape
    return cast("dict[int, Parts]", layers)


def _has_sizes_by_layer(config: Mapping[str, Any], layers: int) -> bool:
    """Whether a config, or a section of it, has a list of sizes with an entry for each layer."""
    inner = [cast(dict[str, Any], each) for each in config.values() if isinstance(each, dict)]
    return any(
        isinstance(value, list) and len(cast(list[Any], value)) == layers and _SIZES.search(key)
        for section in (config, *inner)
        for key, value in section.items()
    )


def _is_norm(part: str, shape: tuple[int, ...]) -> bool:
    """Norms of the layer's input and output are as wide as the model, whatever else varies."""
    return len(shape) == 1 and _NORM.search(part) is not None and "attn" not in part

"""Which layer a tensor belongs to, told from its name alone: no architecture table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers?|h|blocks?|encoder|decoder))\.(\d+)\.")


def layer_of(name: str) -> tuple[str, int] | None:
    """The stack and the layer number: `model.layers.3.mlp.up_proj.weight` → (`model.layers`, 3)."""
    found = _LAYER.match(name)
    return (found.group(1), int(found.group(2))) if found else None


def layers_of(names: Iterable[str]) -> Mapping[str, int]:
    """The stacks of layers and how many layers each has: {`model.layers`: 24}."""
    counts: dict[str, int] = {}
    for name in names:
        place = layer_of(name)
        if place:
            counts[place[0]] = max(counts.get(place[0], 0), place[1] + 1)
    return counts


def depths(names: Iterable[str]) -> Mapping[str, float]:
    """Depth t of every tensor for gradients: layer / (layers − 1) within its stack.

    As in mergekit 0.1.5, t is 0 for tensors outside the layers (embeddings, final norm, lm_head)
    and 1 in a stack of one layer.
    """
    places = {name: layer_of(name) for name in names}
    last = {stack: count - 1 for stack, count in layers_of(places).items()}
    result: dict[str, float] = {}
    for name, place in places.items():
        if place is None:
            result[name] = 0.0
        else:
            result[name] = place[1] / last[place[0]] if last[place[0]] else 1.0
    return result

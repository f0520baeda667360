"""Where a tensor stands in its model, told from names alone: no architecture table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from merge_ops.checkpoints.layout import natural_key

_LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers?|h|blocks?|encoder|decoder))\.(\d+)\.")
_EMBEDDING = re.compile(r"embed(?!_out)|\bwte\b|\bwpe\b")
_NORM = re.compile(r"norm|\bln_")


@dataclass(frozen=True)
class Position:
    """A position says where one tensor stands in its model.

    `depth` is that of `depths`. `position` counts all tensors in order (see `in_order`), and
    `position_in_kind` those of the tensor's kind: in layers, or outside them.
    """

    tensor: str
    depth: float
    in_layer: bool
    position: int
    count: int
    position_in_kind: int
    count_of_kind: int


def layer_of(name: str) -> tuple[str, int] | None:
    """Return a tensor's stack and layer number, or None where it lies in no layer.

    `model.layers.3.mlp.up_proj.weight` gives (`model.layers`, 3).
    """
    found = _LAYER.match(name)
    return (found.group(1), int(found.group(2))) if found else None


def layers_of(names: Iterable[str]) -> Mapping[str, int]:
    """Return how many layers each stack of layers has: {`model.layers`: 24}."""
    counts: dict[str, int] = {}
    for name in names:
        place = layer_of(name)
        if place:
            counts[place[0]] = max(counts.get(place[0], 0), place[1] + 1)
    return counts


def depths(names: Iterable[str]) -> Mapping[str, float]:
    """Return the depth t of every tensor, where gradients are evaluated.

    t is layer / (layers − 1) within the tensor's stack. As in mergekit 0.1.5, t is 0 for tensors
    outside the layers (embeddings, final norm, lm_head) and 1 in a stack of one layer.
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


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names from input to output.

    Embeddings come first, then layers by number and by name within a layer, then the rest, norms
    first.
    """

    def key(name: str) -> tuple[int, str, int, tuple[tuple[int, int | str], ...]]:
        stack, layer = layer_of(name) or ("", -1)
        if stack:
            return 1, stack, layer, natural_key(name)
        return 0 if _EMBEDDING.search(name) else 2, "", not _NORM.search(name), natural_key(name)

    return tuple(sorted(names, key=key))


def positions(names: Iterable[str]) -> Mapping[str, Position]:
    """Return the position of every tensor of a model."""
    order = in_order(names)
    at = depths(order)
    inside = {name: layer_of(name) is not None for name in order}
    of_kind = Counter(inside.values())
    seen: Counter[bool] = Counter()
    result: dict[str, Position] = {}
    for position, name in enumerate(order):
        kind = inside[name]
        result[name] = Position(
            name, at[name], kind, position, len(order), seen[kind], of_kind[kind]
        )
        seen[kind] += 1
    return result

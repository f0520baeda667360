"""Where a tensor stands in its model, told from names alone: no architecture table.

A stack is what comes before a layer's number: `model.layers`, `transformer.h`, `visual.blocks`,
`encoder.layer`, `transformer.resblocks`. The first number counts: a block in a stage, or a
moe_expert in a layer, is no layer of its own. Some networks run through several stacks one after
the other; depth goes over all of them, from the input to the output:

- UNet: `down_blocks`, `mid_block`, `up_blocks`; in one file `input_blocks`, `middle_block`,
  `output_blocks` (IN00 to OUT11 of block merges). The middle counts as one layer.
- Flux and its kin: `transformer_blocks`, then `single_transformer_blocks`; in one file
  `double_blocks`, then `single_blocks`.
- Autoencoders in one file: `encoder.down`, `encoder.mid`; `decoder.mid`, then `decoder.up` from its
  last number to its first, which is how it runs.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.model_parts import predicts_further_tokens

# Stacks that follow one another, by the last words of their names, in the order they run.
CHAINS: tuple[tuple[str, ...], ...] = (
    ("down_blocks", "mid_block", "up_blocks"),
    ("input_blocks", "middle_block", "output_blocks"),
    ("encoder.down", "encoder.mid"),
    ("decoder.mid", "decoder.up"),
    ("transformer_blocks", "single_transformer_blocks"),
    ("joint_transformer_blocks", "single_transformer_blocks"),
    ("double_blocks", "single_blocks"),
    ("double_stream_blocks", "single_stream_blocks"),
    ("double_layers", "single_layers"),
)
_BACKWARDS = "decoder.up"
_UNNUMBERED = ("mid_block", "middle_block", "encoder.mid", "decoder.mid")
_IN_CHAINS = sorted({word for chain in CHAINS for word in chain} - set(_UNNUMBERED))
_WORDS = "|".join(
    [
        "layers?", "h", "blocks?", "encoder", "decoder", "stages?", "resblocks", "joint_blocks",
        *map(re.escape, _IN_CHAINS),
    ]
)  # fmt: skip
_LAYER = re.compile(rf"^(.*?(?:^|\.)(?:{_WORDS}))\.(\d+)\.")
_MIDDLE = re.compile(rf"^(.*?(?:^|\.)(?:{'|'.join(map(re.escape, _UNNUMBERED))}))\.")
_EMBEDDING = re.compile(r"embed(?!_out)|\bwte\b|\bwpe\b")
_NORM = re.compile(r"norm|\bln_")


@dataclass(frozen=True, slots=True)
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


@lru_cache(maxsize=1 << 17)
def layer_of(name: str) -> tuple[str, int] | None:
    """Return a tensor's stack and layer number, or None where it lies in no layer.

    `model.layers.3.mlp.up_proj.weight` gives (`model.layers`, 3). The middle of a UNet has no
    number: `mid_block.resnets.0.conv1.weight` gives (`mid_block`, 0).
    """
    found, middle = _LAYER.match(name), _MIDDLE.match(name)
    if middle and (found is None or middle.end(1) < found.end(1)):
        return _layer(middle.group(1), 0)
    return _layer(found.group(1), int(found.group(2))) if found else None


@lru_cache(maxsize=1 << 12)
def _layer(stack: str, number: int) -> tuple[str, int]:
    """A layer; all its tensors have the same object."""
    return sys.intern(stack), number


def layers_of(names: Iterable[str]) -> Mapping[str, int]:
    """Return how many layers each stack of layers has: {`model.layers`: 24}."""
    counts: dict[str, int] = {}
    for place in dict.fromkeys(map(layer_of, names)):
        if place:
            counts[place[0]] = max(counts.get(place[0], 0), place[1] + 1)
    return counts


def depths(names: Iterable[str], counted: Mapping[str, int] | None = None) -> Mapping[str, float]:
    """Return the depth t of every tensor, where gradients are evaluated.

    t is layer / (layers − 1) within the tensor's stack, or within the stacks that run one after the
    other. `counted` holds, for a stack that has layers behind the last one that its model counts,
    how many it counts (`layer_counts.counted_layers`). As in mergekit 0.1.5, t is 0 for tensors
    outside the layers (embeddings, final norm, lm_head) and 1 in a stack of one layer; it is 1 too
    behind the counted layers and in a part for multi-token prediction.
    """
    places = {name: layer_of(name) for name in names}
    runs = _runs({**layers_of(places), **(counted or {})})
    result: dict[str, float] = {}
    known: dict[tuple[str, int], float] = {}
    for name, place in places.items():
        if predicts_further_tokens(name):
            result[name] = 1.0
        elif place is None:
            result[name] = 0.0
        else:
            if place not in known:
                run = runs[place[0]]
                known[place] = min(1.0, run.unit(place[1]) / run.last) if run.last else 1.0
            result[name] = known[place]
    return result


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names from input to output.

    Embeddings come first, then layers by number and by name within a layer, then the rest, norms
    first.
    """
    listed = tuple(names)
    runs = _runs(layers_of(listed))

    def key(name: str) -> tuple[int, str, int, tuple[tuple[int, int | str], ...]]:
        stack, layer = layer_of(name) or ("", -1)
        if stack:
            return 1, runs[stack].name, runs[stack].unit(layer), natural_key(name)
        return 0 if _EMBEDDING.search(name) else 2, "", not _NORM.search(name), natural_key(name)

    return tuple(sorted(listed, key=key))


def positions(
    names: Iterable[str], at: Mapping[str, float] | None = None
) -> Mapping[str, Position]:
    """Return the position of every tensor of a model.

    `at` holds the depths where they are known already.
    """
    order = in_order(names)
    at = depths(order) if at is None else at
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


@dataclass(frozen=True)
class _Run:
    """Where a stack lies in the run of stacks that it belongs to; most are alone in theirs."""

    name: str
    before: int
    count: int
    last: int
    backwards: bool = False

    def unit(self, layer: int) -> int:
        """The layer's number in the whole run."""
        return self.before + (self.count - 1 - layer if self.backwards else layer)


def _runs(counts: Mapping[str, int]) -> Mapping[str, _Run]:
    """The run of every stack, from the number of layers of each."""
    runs: dict[str, _Run] = {}
    for stack in counts:
        run = [each for each in _chain_of(stack, counts) if each in counts]
        last = sum(counts[each] for each in run) - 1
        before = sum(counts[each] for each in run[: run.index(stack)])
        backwards = stack.endswith(_BACKWARDS)
        runs[stack] = _Run(run[0], before, counts[stack], last, backwards)
    return runs


def _chain_of(stack: str, counts: Mapping[str, int]) -> list[str]:
    """The stacks that run one after the other with this one, in order; it alone, for most."""
    for chain in CHAINS:
        for word in chain:
            if stack == word or stack.endswith("." + word):
                prefix = stack[: len(stack) - len(word)]
                found = [prefix + each for each in chain]
                if sum(each in counts for each in found) > 1:
                    return found
    return [stack]

"""What an output must hold by its own config.json, told without any library.

A rule counts where the base keeps it: an unheard-of model that does not is no worse for being
merged. What a class of transformers expects is asked in plans.expected_tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from merge_ops.checkpoints.configs.config import TEXT, VOCABULARY_SIZES
from merge_ops.checkpoints.configs.layer_counts import LAYER_COUNTS
from merge_ops.checkpoints.names.depth import layer_of, layers_of
from merge_ops.checkpoints.names.tensor_names import is_embedding, is_head
from merge_ops.errors import Fault
from merge_ops.plans.plan import Plan

Shapes = Mapping[str, tuple[int, ...]]
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_SIZES_BY_LAYER = re.compile(r"heads|intermediate|ffn")


def rule_faults(plan: Plan) -> list[Fault]:
    """Return what is wrong with the tensors that a plan writes, by the config that it writes."""
    before: Shapes = {name: entry.shape for name, entry in plan.base.tensors.items()}
    after: Shapes = {step.output.name: step.output.shape for step in plan.steps}
    config, was = _text(plan.config), _text(plan.base.config)
    if not config:
        return []
    rules = (_vocabulary, _width, _head)
    problems = [rule(config, after) for rule in rules if not rule(was, before)]
    problems.append(_layer_count(config, after, _counted_stack(was, before)))
    faults = [
        Fault("the output", f"{problem}, by the config.json of {plan.base.name}")
        for problem in problems
        if problem
    ]
    if plan.arrangement.stacks and not _sizes_by_layer(config):
        faults += _layer_faults(plan.base.name, before, after)
    return faults


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text model, which is a part of that of a multimodal one."""
    inner = config.get(TEXT)
    if not isinstance(inner, dict) or _number(config, LAYER_COUNTS) is not None:
        return config
    ties = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return {**cast(Mapping[str, Any], inner), **ties}


def _number(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    found = [config[key] for key in keys if type(config.get(key)) is int]
    return found[0] if found else None


def _counted_stack(config: Mapping[str, Any], shapes: Shapes) -> str | None:
    """The one stack that has as many layers as the config states; none where two or none have."""
    stated = _number(config, LAYER_COUNTS)
    stacks = [stack for stack, count in layers_of(shapes).items() if count == stated]
    return stacks[0] if len(stacks) == 1 else None


def _layer_count(config: Mapping[str, Any], shapes: Shapes, stack: str | None) -> str:
    stated = _number(config, LAYER_COUNTS)
    if stated is None or stack is None:
        return ""
    numbers = {place[1] for name in shapes if (place := layer_of(name)) and place[0] == stack}
    if numbers == set(range(stated)):
        return ""
    gaps = sorted(set(range(stated)) - numbers)
    lacks = f"; {gaps[0]} is missing" if gaps else ""
    return f"has {len(numbers)} layers in '{stack}'{lacks}, and must have {stated}"


def _embedding(shapes: Shapes) -> tuple[str, tuple[int, ...]] | None:
    found = [each for each in shapes.items() if is_embedding(each[0]) and len(each[1]) == 2]
    return found[0] if len(found) == 1 else None


def _vocabulary(config: Mapping[str, Any], shapes: Shapes) -> str:
    stated, found = _number(config, VOCABULARY_SIZES), _embedding(shapes)
    if stated is None or found is None or found[1][0] >= stated:
        return ""
    return f"has '{found[0]}' with {found[1][0]} rows, and must have {stated}"


def _width(config: Mapping[str, Any], shapes: Shapes) -> str:
    stated, found = _number(config, _WIDTHS), _embedding(shapes)
    if stated is None or found is None or found[1][1] == stated:
        return ""
    return f"has '{found[0]}' of width {found[1][1]}, and must have {stated}"


def _head(config: Mapping[str, Any], shapes: Shapes) -> str:
    if config.get("tie_word_embeddings") is not False or any(map(is_head, shapes)):
        return ""
    return "has no output head, and must have one (`tie_word_embeddings: false`)"


def _sizes_by_layer(config: Mapping[str, Any]) -> bool:
    return any(
        isinstance(value, list) and _SIZES_BY_LAYER.search(key) for key, value in config.items()
    )


def _layer_faults(base: str, before: Shapes, after: Shapes) -> Iterator[Fault]:
    """Layers of a new stack whose parts no layer of the base has: its config describes none."""
    known, made = _by_layer(before), _by_layer(after)
    for stack in {stack for stack, _ in made}:
        kinds = [parts for (its, _), parts in known.items() if its == stack]
        odd = sorted(n for (its, n), parts in made.items() if its == stack and parts not in kinds)
        if not odd or not kinds or any(kind != kinds[0] for kind in kinds):
            continue  # where the base's own layers differ, others may
        parts = made[stack, odd[0]]
        nearest = max(kinds, key=lambda kind: len(kind.items() & parts.items()))
        name = sorted(key for key in {**nearest, **parts} if nearest.get(key) != parts.get(key))[0]
        ours, theirs = (list(each[name]) if name in each else "none" for each in (parts, nearest))
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        yield Fault(
            f"layer {odd[0]}{more} of the output",
            f"has '{name}' of shape {ours}, and no layer of {base}, whose config.json is written,"
            f" has that (its nearest: {theirs}); slices must be of one architecture and width",
        )


def _by_layer(shapes: Shapes) -> dict[tuple[str, int], dict[str, tuple[int, ...]]]:
    found: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        place = layer_of(name)
        if place is not None:
            rest = name.removeprefix(f"{place[0]}.{place[1]}.")
            found.setdefault(place, {})[rest] = shape
    return found

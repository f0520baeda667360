"""Nothing is dropped silently: what modules and slices do with every tensor of every model.

A tensor is merged, copied, named among those that are not written, or a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.errors import Caution, Fault

MAX_NAMED = 5


def named(names: Iterable[str]) -> str:
    """Return the first names in quotes, and how many more there are."""
    listed = sorted(names, key=natural_key)
    shown = ", ".join(f"'{name}'" for name in listed[:MAX_NAMED])
    rest = len(listed) - MAX_NAMED
    return f"{shown} and {rest} more tensors" if rest > 0 else shown


def module_faults(
    donor: Checkpoint, members: Sequence[Checkpoint], holds: Callable[[str], bool]
) -> Iterator[Fault]:
    """Yield what a module's models do not all have: every tensor that it holds must be in each.

    The model that gives the config is one of them, since its config describes the module.
    """
    for model in {each.name: each for each in members if each is not donor}.values():
        skipped = {**excluded(donor), **excluded(model)}
        lacks, has = (
            [
                name
                for name in one.tensors
                if holds(name) and name not in skipped and find_source(other, name) is None
            ]
            for one, other in ((donor, model), (model, donor))
        )
        if lacks:
            yield Fault(model.name, f"lacks {named(lacks)}, which {donor.name} has")
        if has:
            problem = f"has {named(has)}, which {donor.name} lacks; nothing is dropped silently"
            yield Fault(model.name, problem)


def outside_modules(
    donor: Checkpoint, models: Iterable[Checkpoint], held: Callable[[str], bool]
) -> tuple[Mapping[str, str], list[Caution]]:
    """Return the tensors in no module that the donor lacks, with the reason, and cautions of them.

    What the donor has there is copied from it.
    """
    reasons: dict[str, str] = {}
    cautions: list[Caution] = []
    for model in {each.name: each for each in models if each is not donor}.values():
        skipped = excluded(model)
        own = [
            name
            for name in model.tensors
            if name not in donor.tensors and name not in skipped and not held(name)
        ]
        for name in own:
            reasons.setdefault(name, f"in no module, and only {model.name} has it")
        if own:
            problem = f"has {named(own)}, which {donor.name} lacks and no module holds"
            advice = "They are not written; to merge them, name a module that holds them"
            cautions.append(Caution(model.name, problem, advice))
    return reasons, cautions


def gap_caution(
    ranges: Sequence[tuple[str, int, int]], layers: Mapping[str, Collection[int]], made: int
) -> Caution | None:
    """Return a caution where slices leave out layers, or None.

    `ranges` are (model, first, end) of all sources, `layers` the numbers of the layers that each
    model has. A number that is in a slice of any model is not left out: stacking the lower layers
    of one model and the upper ones of another leaves out none.
    """
    taken = {number for _, first, end in ranges for number in range(first, end)}
    left = sorted(frozenset[int]().union(*layers.values()) - taken)
    if not left:
        return None
    holders = [model for model, numbers in layers.items() if not taken.issuperset(numbers)]
    plural = len(left) > 1
    which = f"layers {_numbers(left)}" if plural else f"layer {left[0]}"
    return Caution(
        "",
        f"{which} of {' and '.join(holders)} {'are' if plural else 'is'} in no slice; the result"
        f" has {made} layer{'' if made == 1 else 's'}",
        "The end of a layer_range is not included: [0, 2] takes layers 0 and 1",
    )


def repeat_caution(sources: Sequence[frozenset[tuple[str, int]]]) -> Caution | None:
    """Return a caution where a merge is made twice of the same layers, or None.

    `sources` holds, for each layer made, the models and the layer numbers that it is made of.
    """
    seen: set[frozenset[tuple[str, int]]] = set()
    twice: list[int] = []
    for layer in sources:
        if layer in seen:
            twice.append(min(number for _, number in layer))
        seen.add(layer)
    if not twice:
        return None
    numbers = sorted(set(twice))
    plural = len(numbers) > 1
    which = f"layers {_numbers(numbers)}" if plural else f"layer {numbers[0]}"
    return Caution(
        "",
        f"{which} of the same models {'are' if plural else 'is'} merged by more than one slice; the"
        f" result has {len(sources)} layers",
        "The end of a layer_range is not included: [0, 2] and [2, 4] share no layer",
    )


def _numbers(numbers: Sequence[int]) -> str:
    """`1 and 3`, `4 to 7`, `0, 2 to 5 and 9`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words: list[str] = []
    for run in runs:
        words += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]

"""Which modules an adapter's config means, and whether its tensors are those modules' tensors.

PEFT builds its layers from `target_modules`, `exclude_modules` and `layers_to_transform`, and then
loads into them what fits. It leaves factors of other modules out, and starts those that the file
lacks anew, so that they change nothing; of both it says little. Here the first is a fault, as the
config and the weights do not belong together, and the second a caution.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.name_prefixes import without_inner_wrappers
from merge_ops.errors import Caution, Fault
from merge_ops.sources.lora.module_patterns import PatternError, module_pattern

_ALL = "all-linear"
_REGULAR = frozenset("\\^$*+?{}[]()|")


@dataclass(frozen=True)
class Targets:
    """Targets are the modules that an adapter's config means.

    `named` and `excluded` hold the ends of their names, or one regular expression as a text.
    `layers` are the layers that are changed, counted below a module of one of `stacks`; None is
    every layer, and no `stacks` is any.
    """

    named: frozenset[str] | str
    excluded: frozenset[str] | str
    layers: frozenset[int] | None
    stacks: tuple[str, ...]

    def means(self, module: str) -> bool:
        """Return whether the config means a module. Raises PatternError where that is too much."""
        if _matches(self.excluded, module) or not _matches(self.named, module):
            return False
        if self.layers is None or isinstance(self.named, str) or module in self.named:
            return True
        return _layer(module, self.stacks) in self.layers


def _matches(named: frozenset[str] | str, module: str) -> bool:
    if isinstance(named, str):
        return bool(named) and module_pattern(f"^(?:{named})").means(module)
    pieces = module.split(".")
    return any(".".join(pieces[start:]) in named for start in range(len(pieces)))


def _layer(module: str, stacks: tuple[str, ...]) -> int | None:
    """The number of a module's layer: the first in its name, behind a stack where some are told."""
    pieces = module.split(".")
    for place in range(1 if stacks else 2, len(pieces) - 1):
        above = "." + ".".join(pieces[:place])
        is_number = pieces[place].isascii() and pieces[place].isdecimal()
        if is_number and (not stacks or any(above.endswith(f".{stack}") for stack in stacks)):
            return int(pieces[place][:9])
    return None


def parse_targets(raw: Mapping[str, Any], file: str, faults: list[Fault]) -> Targets | None:
    """Read what adapter_config.json says of its modules and return it.

    None where only PEFT can tell: no `target_modules`, or `all-linear`. What is no name, list of
    names or layer number goes to `faults`, each at its key in `file`.
    """
    before = len(faults)
    named = _names(raw, "target_modules", file, faults)
    excluded = _names(raw, "exclude_modules", file, faults) or frozenset[str]()
    stacks = _names(raw, "layers_pattern", file, faults) or frozenset[str]()
    stacks = {stacks} if isinstance(stacks, str) else stacks
    layers: Any = raw.get("layers_to_transform")
    listed = cast(list[Any], layers if isinstance(layers, list) else [layers])
    numbers = [] if layers is None else listed
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in numbers):
        problem = (
            f"is {repr(cast(object, layers))[:200]}; it must be a layer's number or a list of them"
        )
        faults.append(Fault(f"{file}: layers_to_transform", problem))
    unreadable = len(faults) > before or any(_REGULAR & set(stack) for stack in stacks)
    if unreadable or named is None or (isinstance(named, str) and named.lower() == _ALL):
        return None
    return Targets(named, excluded, frozenset(numbers) or None, tuple(sorted(stacks)))


def _names(
    raw: Mapping[str, Any], key: str, file: str, faults: list[Fault]
) -> frozenset[str] | str | None:
    given: Any = raw.get(key)
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, list) and all(isinstance(each, str) for each in cast(list[Any], given)):
        return frozenset(map(without_inner_wrappers, cast(list[str], given)))
    shown = repr(cast(object, given))[:200]
    problem = f"is {shown}; it must be a list of module names or a regular expression"
    faults.append(Fault(f"{file}: {key}", problem))
    return None


def target_faults(targets: Targets | None, modules: Iterable[str], file: str) -> Iterator[Fault]:
    """Yield one fault where there are factors of modules that the config does not mean."""
    try:
        others = [each for each in modules if targets is not None and not targets.means(each)]
    except PatternError:  # what takes too much work to be matched says nothing for certain
        return
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        problem = (
            f"do not mean '{others[0]}'{more}, but the weights hold factors of it, which PEFT would"
            " leave out; config and weights are of different adapters, or the config was edited"
        )
        yield Fault(f"{file}: target_modules, exclude_modules, layers_to_transform", problem)


def targets_caution(
    name: str,
    targets: Targets | None,
    tensors: Mapping[str, TensorEntry],
    changed: Collection[str],
) -> Iterator[Caution]:
    """Yield a caution where modules of the base that a config names are not changed.

    `tensors` are the base's, `changed` those of them that the adapter changes. Of a regular
    expression nothing is said: a base has many modules, and each may take many steps.
    """
    if targets is None or isinstance(targets.named, str) or isinstance(targets.excluded, str):
        return
    meant = [
        tensor
        for tensor, entry in tensors.items()
        if len(entry.shape) > 1
        and tensor.endswith(".weight")
        and targets.means(tensor.removesuffix(".weight"))
    ]
    absent = [tensor for tensor in meant if tensor not in changed]
    if absent:
        yield Caution(
            name,
            f"changes {len(meant) - len(absent)} of the {len(meant)} modules that its"
            f" adapter_config.json names: the weights hold no factors of"
            f" '{absent[0].removesuffix('.weight')}'",
            "Copy the adapter again where it was saved, if they should be there",
        )

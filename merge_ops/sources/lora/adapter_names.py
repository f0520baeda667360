"""Names of an adapter's modules on a base that names them otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.name_layouts import layout_difference
from merge_ops.checkpoints.names.name_prefixes import body_renaming
from merge_ops.checkpoints.names.placeholders import placeholder_fault
from merge_ops.checkpoints.names.saved_names import same_modules
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.checkpoints.quantization import quantization_fault
from merge_ops.errors import Fault
from merge_ops.sources.lora.adapter_config import AdapterConfig

if TYPE_CHECKING:
    from merge_ops.sources.lora.adapters import Adapter


@dataclass(frozen=True)
class RenamedConfig(AdapterConfig):
    """A renamed config is that of an adapter whose modules have the names of its base.

    Patterns of ranks and alphas are meant for the `original` names.
    """

    original: Mapping[str, str] = field(default_factory=dict[str, str])

    def rank_of(self, module: str) -> int:
        """Return the rank of a module by its new name. Raises PatternError."""
        return super().rank_of(self.original.get(module, module))

    def scale_of(self, module: str) -> float:
        """Return the scale of a module by its new name. Raises PatternError."""
        return super().scale_of(self.original.get(module, module))


def named_for(adapter: Adapter, base: Checkpoint) -> Adapter:
    """Return the adapter with the names that its base has for the same modules.

    An adapter of `GPT2LMHeadModel` says `transformer.h.0.…`, and the base as `GPT2Model` saves it
    `h.0.…`; one of a Qwen2.5-VL says `model.language_model.layers.0`, and the file of the base
    `model.layers.0`. It is returned as it is where its names are the base's, or nothing that
    transformers renames makes them so.
    """
    wanted = _wanted(adapter)
    if _all_there(base, wanted):
        return adapter
    renaming = body_renaming(base.tensors, wanted, known_prefixes_only=True)
    renaming = renaming or same_modules(base.tensors, wanted)
    if not renaming or not _all_there(base, [renaming.get(name, name) for name in wanted]):
        return adapter
    modules = {
        old.removesuffix(".weight"): new.removesuffix(".weight") for old, new in renaming.items()
    }
    original = {new: old for old, new in modules.items()}
    return dataclasses.replace(
        adapter,
        config=RenamedConfig(**vars(adapter.config), original=original),
        factors={modules.get(module, module): each for module, each in adapter.factors.items()},
        whole={renaming.get(name, name): stored for name, stored in adapter.whole.items()},
    )


def fit_faults(adapter: Adapter, base: Checkpoint) -> Iterator[Fault]:
    """Yield what keeps all of an adapter from its base: each is a reason of its own.

    The base is quantized or holds placeholders, or its names are another layout of the same model.
    """
    for fault in (quantization_fault(base), placeholder_fault(base)):
        if fault is not None:
            yield fault
    wanted = _wanted(adapter)
    absent = {name for name in wanted if find_source(base, name) is None}
    others = [name for name in base.tensors if name not in wanted]
    layout = layout_difference(base.name, others, absent, (base.tensors, {}))
    if layout is not None and layout.theirs == frozenset(absent):
        advice = "merge it into the base in the layout that it was trained on"
        yield Fault("the adapter", f"{layout.problem}; {advice}")


def _wanted(adapter: Adapter) -> dict[str, None]:
    """The tensors that an adapter changes, in order."""
    return dict.fromkeys([*(f"{module}.weight" for module in adapter.factors), *adapter.whole])


def _all_there(base: Checkpoint, names: Iterable[str]) -> bool:
    return all(find_source(base, name) is not None for name in names)

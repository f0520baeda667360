"""The config of a model with a new stack of layers: counts, lists by layer, and what else names
layers by number.

Where a config says which layers are of a kind, each layer of the new stack keeps the kind that it
had in the model it comes from. Some keys cannot say that of every stack (a threshold, a period):
then they stay, and a caution tells.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.layer_counts import (
    FURTHER_LAYERS,
    LAYER_COUNTS,
    layer_count,
    section_of,
)
from merge_ops.errors import Caution

_PER_LAYER = re.compile(r"layer|block|heads|intermediate|ffn|window|pattern")
_INDEX_LIST = re.compile(r"layers$|layer_(?:ids|idxs|indices|indexes)$|_idxs$")
_OF_ANOTHER_PART = re.compile(r"vision|visual|feature|image|audio|deepstack|select")
# Layers below this number are of one kind, the others of another.
_THRESHOLDS = (
    "first_k_dense_replace", "num_dense_layers", "n_dense_layers", "num_hash_layers",
    "max_window_layers", "moe_layer_start_index",
)  # fmt: skip
# So many layers at the end are of another kind (Gemma 3n shares their keys and values).
_AT_THE_END = ("num_kv_shared_layers",)
# Each n-th layer is of another kind, unless a list by layer says which.
_PERIODS = {
    "full_attention_interval": ("layer_types",),
    "sliding_window_pattern": ("layer_types",),
    "_sliding_window_pattern": ("layer_types",),
    "global_attn_every_n_layers": ("layer_types",),
    "attn_layer_period": ("layer_types", "layers_block_type"),
    "expert_layer_period": (),
    "decoder_sparse_step": (),
    "moe_layer_freq": (),
    "moe_layer_interval": (),
    "interleave_moe_layer_step": ("moe_layers",),
    "no_rope_layer_interval": ("no_rope_layers",),
    "cross_layer_interval": (),
}
# BART's and Whisper's `num_hidden_layers` is their `encoder_layers`.
_MEANT_BY_ALL = (*LAYER_COUNTS, "encoder_layers")


@dataclass(frozen=True)
class NewStack:
    """A new stack is the layers that slices make: where each comes from, and what follows them.

    `further` is the number of layers for multi-token prediction that are written behind them.
    """

    name: str
    origins: tuple[tuple[Checkpoint, int], ...]
    further: int = 0


def restack(config: Mapping[str, Any], stack: NewStack) -> tuple[dict[str, Any], list[Caution]]:
    """Return a config that describes the new stack, and what it cannot describe."""
    count = layer_count(config, stack.name)
    if count is None:
        return dict(config), []
    section = dict(section_of(config, count.sections))
    cautions: list[Caution] = []
    _Restacking(stack, count.layers, section, cautions).run()
    section[count.key] = len(stack.origins)
    for key in LAYER_COUNTS if count.key in _MEANT_BY_ALL else ():
        if section.get(key) == count.layers:  # some say it twice: `num_layers` of ChatGLM
            section[key] = len(stack.origins)
    return _with_section(config, count.sections, section), cautions


class _Restacking:
    """One section of a config, changed key by key."""

    def __init__(
        self, stack: NewStack, before: int, section: dict[str, Any], cautions: list[Caution]
    ) -> None:
        self._stack = stack
        self._before = before
        self._section = section
        self._cautions = cautions

    def run(self) -> None:
        further = max((_whole(self._section.get(key)) or 0 for key in FURTHER_LAYERS), default=0)
        for key, value in list(self._section.items()):
            if key in FURTHER_LAYERS:
                if _whole(value) and not self._stack.further:
                    self._section[key] = 0
            elif key in _THRESHOLDS or key in _AT_THE_END:
                self._threshold(key)
            elif key in _PERIODS and _whole(value):
                self._period(key)
            elif isinstance(value, str) and len(value) == self._before and "pattern" in key:
                # Nemotron-H: one letter for each layer.
                self._section[key] = "".join(str(each) for each in self._by_layer(key, value))
            elif isinstance(value, list):
                self._list(key, cast(list[Any], value), further)

    def _list(self, key: str, value: list[Any], further: int) -> None:
        numbers = [each for each in value if _whole(each) is not None]
        rising = len(numbers) == len(value) and all(
            one < two for one, two in itertools.pairwise(numbers)
        )
        ours = _OF_ANOTHER_PART.search(key) is None
        named = _INDEX_LIST.search(key) is not None
        if ours and named and value and rising and numbers[-1] < self._before + further:
            self._indices(key)
        elif _PER_LAYER.search(key) and len(value) in (self._before, self._before + further):
            tail = value[self._before :] if self._stack.further else []
            self._section[key] = [*self._by_layer(key, value), *tail]

    def _by_layer(self, key: str, otherwise: Sequence[Any]) -> list[Any]:
        """What each layer's own model says of it; if nothing, what the base says."""
        found: list[Any] = []
        for model, layer in self._stack.origins:
            said: Any = self._said(model, key)
            same = type(said) is type(otherwise) and len(said) > 0
            own = cast(Sequence[Any], said) if same else otherwise
            found.append(own[min(layer, len(own) - 1)])
        return found

    def _indices(self, key: str) -> None:
        """A list of the layers of a kind."""
        base = self._section[key]

        def of_kind(model: Checkpoint, layer: int) -> bool:
            said = self._said(model, key)
            return layer in (cast(list[Any], said) if isinstance(said, list) else base)

        kinds = self._kinds(of_kind)
        behind = [each for each in base if each >= self._before] if self._stack.further else []
        moved = [each - self._before + len(kinds) for each in behind]
        self._section[key] = [at for at, kind in enumerate(kinds) if kind] + moved

    def _threshold(self, key: str) -> None:
        """A number of layers at the start, or at the end, that are of one kind."""
        base = _whole(self._section[key])
        if base is None:
            return
        from_end = key in _AT_THE_END

        def of_kind(model: Checkpoint, layer: int) -> bool:
            said = _whole(self._said(model, key))
            number = base if said is None else said
            if from_end:
                found = layer_count(model.config, self._stack.name)
                return layer >= (found.layers if found else self._before) - number
            return layer < number

        kinds = self._kinds(of_kind)
        self._section[key] = sum(kinds)
        expected = sorted(kinds, reverse=not from_end)
        if kinds != expected and self._matters(key):
            where = "the last" if from_end else "the first"
            self._tell(key, f"says it of {where} layers alone", kinds, expected)

    def _period(self, key: str) -> None:
        period = cast(int, self._section[key])
        if any(isinstance(self._section.get(each), list) for each in _PERIODS[key]):
            return
        kinds = [layer % period for _, layer in self._stack.origins]
        expected = [at % period for at in range(len(kinds))]
        if period > 1 and kinds != expected:
            self._tell(key, f"says it by a period of {period}", kinds, expected)

    def _matters(self, key: str) -> bool:
        """Qwen2 names a threshold for windows that are off."""
        return key != "max_window_layers" or bool(self._section.get("use_sliding_window"))

    def _tell(
        self, key: str, says: str, kinds: Sequence[object], expected: Sequence[object]
    ) -> None:
        pairs = zip(kinds, expected, strict=True)
        at = next(number for number, (kind, other) in enumerate(pairs) if kind != other)
        model, layer = self._stack.origins[at]
        self._cautions.append(
            Caution(
                "slices",
                f"put layer {layer} of {model.name} at {at}, where `{key}` of config.json (now"
                f" {self._section[key]}) gives it another kind than it has: that key {says}",
                "Choose ranges that keep the order of the kinds, or change config.json of the"
                " result by hand if its class can say it otherwise",
            )
        )

    def _kinds(self, of_kind: Callable[[Checkpoint, int], bool]) -> list[bool]:
        return [of_kind(model, layer) for model, layer in self._stack.origins]

    def _said(self, model: Checkpoint, key: str) -> Any:
        """What the config of a model says under a key, beside its number of layers."""
        found = layer_count(model.config, self._stack.name)
        section = section_of(model.config, found.sections) if found else model.config
        return section.get(key, model.config.get(key))


def _with_section(
    config: Mapping[str, Any], sections: Sequence[str], section: dict[str, Any]
) -> dict[str, Any]:
    if not sections:
        return section
    key, *inner = sections
    return {**config, key: _with_section(config[key], inner, section)}


def _whole(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if value >= 0 else None

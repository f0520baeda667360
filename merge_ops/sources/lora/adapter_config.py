"""adapter_config.json of a PEFT adapter: what decides the numbers, and what cannot be merged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.errors import Fault
from merge_ops.sources.lora.module_patterns import PatternError, module_pattern

FILE = "adapter_config.json"
KINDS = ("LORA",)
MAX_RANK = 1 << 20
MAX_ALPHA = 1e30
# Each makes the result something other than W + scale · B A for every input.
NOT_LINEAR = {
    "use_dora": "DoRA rescales each row by a learned magnitude",
    "layer_replication": "it repeats layers of the base",
    "use_qalora": "QA-LoRA pools its inputs by groups",
    "use_bdlora": "its factors are block-diagonal",
    "arrow_config": "Arrow routes each token among several adapters",
    "kasa_config": "KaSA has a third factor",
    "monteclora_config": "MonteCLoRA draws its weights at random",
    "alora_invocation_tokens": "an activated LoRA acts on some tokens only",
    "target_parameters": "it changes parameters inside a module, such as stacked"
    " moe experts; merge it with PEFT (`merge_and_unload`) into the base, and name the result",
    "trainable_token_indices": "it trains single rows of an embedding",
}  # fmt: skip
# These split the base's own weights into the adapter and a rest; B A is no change to the base.
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter config is the part of adapter_config.json that decides the numbers.

    Its fields have PEFT's names.
    """

    r: int
    lora_alpha: float
    use_rslora: bool
    fan_in_fan_out: bool
    lora_bias: bool
    ensure_weight_tying: bool
    modules_to_save: tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    def rank_of(self, module: str) -> int:
        """Return the rank of a module: that of a pattern which matches, or `r`.

        Raises PatternError where a pattern needs more steps than are allowed.
        """
        return int(_by_pattern(self.rank_pattern, module, self.r))

    def scale_of(self, module: str) -> float:
        """Return the scale of a module: alpha / r, or alpha / sqrt(r) with `use_rslora`.

        Raises PatternError where a pattern needs more steps than are allowed.
        """
        alpha, rank = _by_pattern(self.alpha_pattern, module, self.lora_alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _by_pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    """The value of the first pattern (a regular expression) that ends the module's name.

    Raises PatternError where a pattern needs more steps than are allowed.
    """
    for pattern, value in patterns.items():
        if module_pattern(pattern).means(module):
            return value
    return otherwise


def _short(value: object) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def refusals(raw: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield a fault for every setting that no weights of the base's shape can express."""
    kind = str(raw.get("peft_type", ""))
    if kind.upper() not in KINDS:
        problem = f"is {kind or 'missing'!r}; only LORA adapters can be merged into weights"
        yield Fault(f"{FILE}: peft_type", problem)
        return
    for key, why in NOT_LINEAR.items():
        if raw.get(key):
            yield Fault(f"{FILE}: {key}", f"is set, which cannot be merged here: {why}")
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        yield Fault(
            f"{FILE}: init_lora_weights",
            f"is {start!r}, which changes the base's own weights before training; save the adapter"
            " again with PEFT's `path_initial_model_for_weight_conversion`",
        )


def parse_adapter_config(raw: Mapping[str, Any], faults: list[Fault]) -> AdapterConfig:
    """Read the config and return it.

    What is wrong with it goes to `faults`, each with what is allowed.
    """

    def number(key: str, value: object, integer: bool) -> float:
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if right and integer and isinstance(value, int) and 0 < value <= MAX_RANK:
            return value
        # An alpha of 0 or below is odd, but it means something.
        if right and not integer and abs(cast(float, value)) <= MAX_ALPHA:
            return cast(float, value)
        what = f"a whole number above 0, at most {MAX_RANK}" if integer else "a number"
        faults.append(Fault(f"{FILE}: {key}", f"is {_short(value)}; it must be {what}"))
        return 1

    def table(key: str, integer: bool) -> dict[str, float]:
        numbers: dict[str, float] = {}
        given: Any = raw.get(key) or {}
        if not isinstance(given, dict):
            problem = f"is {_short(given)}; it must be a mapping of module names to numbers"
            faults.append(Fault(f"{FILE}: {key}", problem))
            return numbers
        for pattern, value in cast(dict[str, object], given).items():
            try:
                module_pattern(pattern)
            except PatternError as error:
                faults.append(Fault(f"{FILE}: {key}", f"holds {_short(pattern)}, {error}"))
                continue
            numbers[pattern] = number(f"{key}.{pattern}", value, integer)
        return numbers

    def flag(key: str) -> bool:
        value: Any = raw.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        # The text "false" is true to Python, and another scale.
        faults.append(Fault(f"{FILE}: {key}", f"is {_short(value)}; it must be true or false"))
        return False

    saved: Any = raw.get("modules_to_save") or []
    names: Any = [saved] if isinstance(saved, str) else saved
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast(Any, names)):
        problem = f"is {_short(cast(Any, saved))}; it must be a list of module names"
        faults.append(Fault(f"{FILE}: modules_to_save", problem))
        names = []
    return AdapterConfig(
        int(number("r", raw.get("r", 8), integer=True)),
        number("lora_alpha", raw.get("lora_alpha", 8), integer=False),
        flag("use_rslora"),
        flag("fan_in_fan_out"),
        flag("lora_bias"),
        flag("ensure_weight_tying"),
        tuple(cast(list[str], names)),
        {key: int(value) for key, value in table("rank_pattern", integer=True).items()},
        table("alpha_pattern", integer=False),
    )

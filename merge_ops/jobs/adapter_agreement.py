"""What adapters must agree on to be averaged into one, and the config of that one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merge_ops.checkpoints.checkpoint import Stored
from merge_ops.checkpoints.layout import natural_key
from merge_ops.errors import Fault
from merge_ops.methods.parameters import is_gradient
from merge_ops.recipes.recipe import Recipe
from merge_ops.sources.lora.adapters import Adapter, pair_roles

METHOD = "linear"
# One setting for all modules of an adapter; a PEFT default where it is not stated.
ONE_FOR_ALL = {"fan_in_fan_out": False, "ensure_weight_tying": False}
# Which model it is for; one that says nothing agrees with all.
ONE_MODEL = ("base_model_name_or_path", "revision", "task_type")


@dataclass(frozen=True)
class Taker:
    """A taker holds the factors that one adapter has for a module, and their scale."""

    roles: Mapping[str, Stored]
    rank: int
    scale: float


@dataclass(frozen=True)
class Module:
    """A module is a part of the model that adapters change.

    `pair` are the names of A and B, `size` is [out, in], and `takers` holds the factors by the
    adapter's number.
    """

    name: str
    pair: tuple[str, str]
    size: tuple[int, int]
    takers: dict[int, Taker] = field(default_factory=dict[int, Taker])

    @property
    def has_shift(self) -> bool:
        """Return whether an adapter trains a bias of its low-rank layer (`lora_bias`)."""
        return any("lora_B.bias" in taker.roles for taker in self.takers.values())

    def rank(self, factor_wise: bool) -> int:
        """Return the rank of the average: the largest rank of the adapters, or their sum.

        It is the largest where they are averaged factor by factor (`factor_wise`).
        """
        ranks = [taker.rank for taker in self.takers.values()]
        return max(ranks) if factor_wise else sum(ranks)


def recipe_faults(recipe: Recipe) -> Iterator[Fault]:
    """Yield a fault for all that a recipe asks for and an average of adapters cannot give."""
    if recipe.merge_method != METHOD:
        problem = f"is {recipe.merge_method!r}; adapters are averaged into an adapter by 'linear'"
        how = "for other methods name models as 'base+adapter', with `ronghe merge`"
        yield Fault("merge_method", f"{problem} only ({how})")
    beyond = {
        "slices": recipe.slices,
        "modules": recipe.modules,
        "experts": recipe.experts,
        "sweep": recipe.sweep,
        "window": recipe.window,
        "tokenizer": recipe.tokenizer,
        "chat_template": recipe.chat_template,
    }
    for key, value in beyond.items():
        if value:
            yield Fault(key, "cannot be had of adapters alone; list them as `models`")
    tables = {"parameters": recipe.parameters}
    tables |= {f"models[{n}].parameters": each.parameters for n, each in enumerate(recipe.models)}
    for where, table in tables.items():
        for key, setting in table.items():
            if is_gradient(setting):
                problem = "is a gradient over layers, and adapters do not tell how many layers the"
                yield Fault(f"{where}.{key}", f"{problem} base has; use filters")


def modules_of(adapters: Sequence[Adapter], faults: list[Fault]) -> dict[str, Module]:
    """Return every module that any adapter changes, by name in natural order.

    Modules whose shapes or kinds differ between adapters go to `faults`.
    """
    names = {name for adapter in adapters for name in adapter.factors}
    modules: dict[str, Module] = {}
    for number, adapter in enumerate(adapters):
        for name, roles in adapter.factors.items():
            pair = pair_roles(roles)
            down, up = (roles[role] for role in pair)
            size = (up.shape[0], down.shape[1])
            module = modules.setdefault(name, Module(name, pair, size))
            if (module.pair, module.size) != (pair, size):
                first = adapters[next(iter(module.takers))].checkpoint.name
                ours = f"'{module.pair[0]}' and changes {list(module.size)}"
                theirs = f"'{pair[0]}' and changes {list(size)}"
                problem = f"has {theirs} in {adapter.checkpoint.name}, but {ours} in {first}"
                faults.append(Fault(f"'{name}'", f"{problem}; their bases differ"))
                continue
            scale = adapter.config.scale_of(name)
            module.takers[number] = Taker(roles, down.shape[0], scale)
    return {name: modules[name] for name in sorted(names, key=natural_key)}


def whole_tensors(
    adapters: Sequence[Adapter], modules: Mapping[str, Module], faults: list[Fault]
) -> dict[str, tuple[Stored, ...]]:
    """Return the tensors that are saved whole, from every adapter, by name.

    Tensors that some adapters lack, or whose shapes differ, go to `faults`.
    """
    names = {name for adapter in adapters for name in adapter.whole}
    tensors: dict[str, tuple[Stored, ...]] = {}
    for name in sorted(names, key=natural_key):
        lacking = [each.checkpoint.name for each in adapters if name not in each.whole]
        if lacking:
            holder = next(each for each in adapters if name in each.whole)
            problem = f"is saved whole in {holder.checkpoint.name}, but not in {', '.join(lacking)}"
            how = "; without the base only what all have can be averaged"
            if ".base_layer." in holder.whole[name].name:
                how += " (where it is the base's own: PEFT's `save_embedding_layers=False`)"
            faults.append(Fault(f"'{name}'", problem + how))
            continue
        stored = tuple(each.whole[name] for each in adapters)
        for each in stored[1:]:
            if each.shape != stored[0].shape:
                problem = f"is {list(each.shape)} in {each.model}, but {list(stored[0].shape)} in"
                faults.append(Fault(f"'{name}'", f"{problem} {stored[0].model}"))
        module = name.rpartition(".")[0]
        if module in modules and any(_saves(adapter, module) for adapter in adapters):
            problem = "is changed by factors in one adapter and is one of `modules_to_save` in"
            faults.append(Fault(f"'{module}'", f"{problem} another; PEFT does either"))
        tensors[name] = stored
    return tensors


def _saves(adapter: Adapter, module: str) -> bool:
    saved = adapter.config.modules_to_save
    return any(f".{module}".endswith(f".{each}") for each in saved)


def check_adapters(
    recipe: Recipe, adapters: Sequence[Adapter], modules: Mapping[str, Module], faults: list[Fault]
) -> None:
    """Add to `faults` each setting in which the adapters cannot be one adapter.

    They must be for one base and have one kind of layer.
    """
    for key, usual in ONE_FOR_ALL.items():
        stated = [bool(adapter.stated.get(key, usual)) for adapter in adapters]
        if len(set(stated)) > 1:
            faults.append(_differ(key, adapters, stated, "it is one setting for a whole adapter"))
    for key in ONE_MODEL:
        if recipe.base_model and key != "task_type":
            continue
        stated = [_stated(adapter, key) for adapter in adapters]
        if len({value for value in stated if value is not None}) > 1:
            how = "adapters of one base are averaged"
            if key != "task_type":
                how += "; if these are names of the same one, say which to write as `base_model`"
            faults.append(_differ(key, adapters, stated, how))
    if not modules:
        faults.append(Fault("", "no adapter has low-rank factors; there is nothing to average"))
    shifted = [name for name, module in modules.items() if module.has_shift]
    unshifted = [name for name, module in modules.items() if not module.has_shift]
    if shifted and unshifted:
        problem = f"trains a bias of '{shifted[0]}', but no adapter does of '{unshifted[0]}'"
        faults.append(Fault("lora_bias", f"{problem}; it is one setting for a whole adapter"))


def _stated(adapter: Adapter, key: str) -> str | None:
    value = adapter.stated.get(key)
    return str(value).rstrip("/") if value else None


def _differ(key: str, adapters: Sequence[Adapter], stated: Sequence[object], how: str) -> Fault:
    statements = [
        f"{value!r} in {adapter.checkpoint.name}"
        for adapter, value in zip(adapters, stated, strict=True)
        if value is not None
    ]
    return Fault(key, f"is {', '.join(statements)}; {how}")


def averaged_config(
    recipe: Recipe,
    adapters: Sequence[Adapter],
    modules: Mapping[str, Module],
    ranks: Mapping[str, int],
    whole: Sequence[str],
) -> dict[str, Any]:
    """Return the adapter_config.json of the average, with a scale of 1 for every module.

    Modules are named in full. The rank that most modules have is `r`; the others stand in both
    patterns.
    """
    counts = list(ranks.values())
    rank = max(sorted(set(counts)), key=counts.count)
    others = {_pattern(name, ranks): each for name, each in ranks.items() if each != rank}
    saved = [each for adapter in adapters for each in adapter.config.modules_to_save]
    biases = [str(adapter.stated.get("bias") or "none") for adapter in adapters]
    whole_biases = [name for name in whole if name.endswith(".bias")]

    def first(key: str) -> Any:
        return next((each.stated[key] for each in adapters if each.stated.get(key)), None)

    named = recipe.base_model
    return {
        "base_model_name_or_path": named or first("base_model_name_or_path"),
        "revision": None if named else first("revision"),
        "peft_type": "LORA",
        "task_type": first("task_type"),
        "auto_mapping": first("auto_mapping"),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "use_rslora": False,
        "fan_in_fan_out": bool(first("fan_in_fan_out")),
        "lora_dropout": 0.0,
        "bias": ("all" if "all" in biases else "lora_only") if whole_biases else "none",
        "lora_bias": any(module.has_shift for module in modules.values()),
        "ensure_weight_tying": bool(first("ensure_weight_tying")),
        "target_modules": list(ranks),
        "modules_to_save": list(dict.fromkeys(saved)) or None,
    }


def _pattern(name: str, names: Iterable[str]) -> str:
    """A key of `rank_pattern`, which matches every name that ends with it.

    A module's name is one, unless it ends another's: then it is bound to the start of the name,
    as PEFT allows.
    """
    ambiguous = any(other.endswith(f".{name}") for other in names)
    return f"^{re.escape(name)}" if ambiguous else name

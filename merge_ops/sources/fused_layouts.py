"""How families keep the projections of MoE experts: fused or one by one, by `model_type`.

    one by one   experts.E.gate_proj.weight, up_proj (I, D), down_proj (D, I)
    fused        experts.gate_up_proj, experts.down_proj: all moe_experts of a layer in one tensor

E moe_experts, D hidden size, I intermediate size. The axes of a fused tensor differ by family, and
several orders have one shape. So they are taken from this table and never guessed; the shapes of
the two fused tensors together then prove them: `down_proj` is (E, D, I) beside (E, 2I, D) and
(E, I, D) beside (E, D, 2I), and no sizes make both true. What is not in the table is not converted.

Looked up in transformers 5.23 (conversion_mapping.py and the models' forward), which a test
compares with the table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from merge_ops.checkpoints.configs.config_levels import TEXT_LEVELS

GATE_UP, DOWN = "gate_up_proj", "down_proj"
Axes = Literal["out_in", "in_out"]
"""`out_in` is (E, 2I, D) and (E, D, I), as Linear layers; `in_out` is (E, D, 2I) and (E, I, D)."""


@dataclass(frozen=True)
class FusedLayout:
    """A fused layout says how files of a family name and order the projections of moe_experts.

    `blocks` are the names of the MLP that loaders take, the one that is written first, and
    `fused_block` is its name beside fused tensors. `parts` are the names of gate, up and down in a
    moe_expert. `interleaved` gate and up alternate, else gate comes first. `one_by_one` says that
    transformers loads them one by one, which other loaders want too; else it loads the fused ones
    alone. `either` order of the axes is loaded, by the shapes, and `axes` is that of the Hub.
    """

    blocks: tuple[str, ...] = ("mlp",)
    fused_block: str = "mlp"
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    axes: Axes = "out_in"
    interleaved: bool = False
    biases: bool = False
    one_by_one: bool = True
    either: bool = False

    @property
    def orders(self) -> tuple[FusedLayout, ...]:
        """Return the layout with each order of the axes that is loaded, the Hub's first."""
        other: Axes = "out_in" if self.axes == "in_out" else "in_out"
        return (self, dataclasses.replace(self, axes=other)) if self.either else (self,)

    @cached_property
    def single(self) -> re.Pattern[str]:
        """Return the pattern of a name of one moe_expert: groups `at`, `number`, `part`, `kind`."""
        blocks, parts = "|".join(self.blocks), "|".join(self.parts)
        kinds = "weight|bias" if self.biases else "weight"
        return re.compile(
            rf"(?P<at>(?:.+\.)?)(?:{blocks})\.experts\.(?P<number>\d+)\.(?P<part>{parts})"
            rf"\.(?P<kind>{kinds})"
        )

    @cached_property
    def fused(self) -> re.Pattern[str]:
        """Return the pattern of a name of a fused tensor: groups `at`, `part`, `bias`."""
        blocks = "|".join(dict.fromkeys([*self.blocks, self.fused_block]))
        bias = "(?P<bias>_bias)?" if self.biases else "(?P<bias>(?!))?"
        return re.compile(
            rf"(?P<at>(?:.+\.)?)(?:{blocks})\.experts\.(?P<part>{GATE_UP}|{DOWN}){bias}"
        )

    def single_name(self, at: str, number: int, part: int, bias: bool = False) -> str:
        """Return the name of gate (0), up (1) or down (2) of a moe_expert, as it is written."""
        kind = "bias" if bias else "weight"
        return f"{at}{self.blocks[0]}.experts.{number}.{self.parts[part]}.{kind}"

    def fused_name(self, at: str, down: bool, bias: bool = False) -> str:
        """Return the name of a fused tensor, as it is written."""
        return f"{at}{self.fused_block}.experts.{DOWN if down else GATE_UP}{'_bias' * bias}"

    def renamed(self, name: str, one_by_one: bool) -> str:
        """Return the name that another tensor of the MLP (its router) has beside the experts."""
        block = self.blocks[0] if one_by_one else self.fused_block
        others = {*self.blocks, self.fused_block} - {block}
        for other in others:
            name = re.sub(rf"(^|\.){other}\.", rf"\g<1>{block}.", name)
        return name


_MIXTRAL = FusedLayout(("block_sparse_moe", "mlp"), "mlp", ("w1", "w3", "w2"))
_QWEN = FusedLayout()
_VL = FusedLayout(axes="in_out", one_by_one=False, either=True)
LAYOUTS: Mapping[str, FusedLayout] = {
    "mixtral": _MIXTRAL,
    "qwen2_moe": _QWEN,
    "qwen3_moe": _QWEN,
    "qwen3_next": _QWEN,
    "qwen3_5_moe": _QWEN,
    "qwen3_5_moe_text": _QWEN,
    "deepseek_v2": _QWEN,
    "deepseek_v3": _QWEN,
    "olmoe": _QWEN,
    "glm4_moe": _QWEN,
    # transformers turns the axes when it loads, and back when it saves what it loaded so.
    "qwen3_vl_moe": _VL,
    "qwen3_vl_moe_text": _VL,
    "gpt_oss": FusedLayout(axes="in_out", interleaved=True, biases=True, one_by_one=False),
    "llama4": FusedLayout(("feed_forward",), "feed_forward", axes="in_out", one_by_one=False),
    "llama4_text": FusedLayout(("feed_forward",), "feed_forward", axes="in_out", one_by_one=False),
}
_MLP_GATE = re.compile(r"(?:^|\.)mlp\.gate\.(?:weight|e_score_correction_bias)")
_ROUTER = re.compile(r"(?:^|\.)(?:mlp|feed_forward)\.router\.(?:weight|bias)")
ROUTERS: Mapping[str, re.Pattern[str]] = {
    "mixtral": re.compile(r"(?:^|\.)(?:block_sparse_moe|mlp)\.gate\.weight"),
    **dict.fromkeys([name for name, each in LAYOUTS.items() if each is _QWEN], _MLP_GATE),
    **dict.fromkeys(["qwen3_vl_moe", "qwen3_vl_moe_text", "deepseek"], _MLP_GATE),
    **dict.fromkeys(["gpt_oss", "llama4", "llama4_text"], _ROUTER),
    **dict.fromkeys(
        ["gemma4", "gemma4_text"],
        re.compile(r"(?:^|\.)router\.(?:proj\.weight|scale|per_expert_scale)"),
    ),
}
"""The tensors that choose moe_experts for a token. A gate of a shared expert chooses nothing."""


def model_types(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the model types that a config states: of the whole, then of its language model."""
    for level in (config, *(config.get(key) for key in TEXT_LEVELS)):
        if isinstance(level, dict | Mapping):
            stated = cast("Mapping[str, Any]", level).get("model_type")
            if isinstance(stated, str):
                yield stated


def layout_of(config: Mapping[str, Any]) -> FusedLayout | None:
    """Return the layout of a config's family, or None where it is not in the table."""
    return next((LAYOUTS[each] for each in model_types(config) if each in LAYOUTS), None)


def router_of(config: Mapping[str, Any]) -> re.Pattern[str] | None:
    """Return the pattern that the end of a router's name has, or None where it is not known."""
    return next((ROUTERS[each] for each in model_types(config) if each in ROUTERS), None)


def is_router(pattern: re.Pattern[str], name: str) -> bool:
    """Return whether a name ends as a router's of the family does."""
    found = pattern.search(name)
    return found is not None and found.end() == len(name)

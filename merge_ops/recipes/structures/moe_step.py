"""Steps that make a mixture of experts out of dense models: mergekit-moe files, as they are.

    base_model: ./base
    gate_mode: hidden
    experts:
      - {source_model: ./math, positive_prompts: ["solve for x"]}
      - {source_model: ./code+./adapter, positive_prompts: ["def main("]}

Attention, norms, embeddings and head are the base's; each expert gives one moe_expert to each
layer; the routers' rows (gates) follow from the prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.calibration.texts import CalibrationTexts, TextReader

METHOD = "passthrough"
SOURCE_MODEL = "source_model"
HIDDEN, CHEAP_EMBED, RANDOM, UNIFORM_RANDOM = "hidden", "cheap_embed", "random", "uniform_random"
RUN_MODES = (HIDDEN, "hidden_avg", "hidden_last", "router_input")
"""Gates that the base is run for."""
DRAWN_MODES = (RANDOM, UNIFORM_RANDOM)
"""Gates that are drawn, and ask no model anything."""
GATE_MODES = (*RUN_MODES, CHEAP_EMBED, *DRAWN_MODES)
USUAL_EXPERTS = 2
"""How many moe_experts a token goes to where a recipe does not say."""
EXPERT_KEYS = (
    SOURCE_MODEL, "positive_prompts", "negative_prompts", "texts", "noise_scale", "residual_scale",
)  # fmt: skip


@dataclass(frozen=True)
class MoeExpert:
    """A model that gives one moe_expert to each layer, and the prompts that it is for.

    Prompts may be the calibration texts of a file, which are read in later.
    """

    source_model: str
    positive_prompts: tuple[str, ...] = ()
    negative_prompts: tuple[str, ...] = ()
    noise_scale: float | None = None
    residual_scale: float | None = None
    texts: CalibrationTexts | None = None

    @property
    def is_described(self) -> bool:
        """Return whether prompts or texts say what it is for."""
        return bool(self.positive_prompts or self.texts)

    def found(self, read: TextReader) -> MoeExpert:
        """Return the expert with its texts read, as prompts. Raises as `read` does."""
        if self.texts is None:
            return self
        texts = self.texts.found(read)
        return dataclasses.replace(self, texts=texts, positive_prompts=texts.lines)

    @property
    def written(self) -> dict[str, Any]:
        """Return the entry as a recipe says it."""
        told: dict[str, Any] = {SOURCE_MODEL: self.source_model}
        if self.texts is not None:
            told["texts"] = self.texts.file
        for key in EXPERT_KEYS[1:]:
            value = getattr(self, key)
            from_file = self.texts is not None and key in ("texts", "positive_prompts")
            if value not in ((), None) and not from_file:
                told[key] = list(cast("tuple[str, ...]", value)) if "prompts" in key else value
        return told


@dataclass(frozen=True)
class MoeStep:
    """A mixture of experts: its base, its experts in order, and how tokens find them.

    `shared` is an expert that every token goes to. `experts_per_token` and `architecture` are what
    the recipe says, None where it says nothing.
    """

    base_model: str
    experts: tuple[MoeExpert, ...]
    shared: MoeExpert | None = None
    gate_mode: str = HIDDEN
    experts_per_token: int | None = None
    architecture: str | None = None

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the experts' models and the shared one's, in order, each once."""
        return tuple(dict.fromkeys(each.source_model for each in self.all_experts))

    @property
    def all_experts(self) -> tuple[MoeExpert, ...]:
        """Return the experts, and the shared one behind them."""
        return (*self.experts, *((self.shared,) if self.shared else ()))

    @property
    def needs_prompts(self) -> bool:
        """Return whether gates are made of prompts, by the base model."""
        return self.gate_mode not in DRAWN_MODES

    @property
    def only_embeds(self) -> bool:
        """Return whether prompts are embedded alone, and no model is run."""
        return self.gate_mode == CHEAP_EMBED

    @property
    def shared_is_gated(self) -> bool:
        """Return whether the shared expert has a gate of its own."""
        if self.shared is None:
            return False
        return self.shared.is_described or not self.needs_prompts

    @property
    def prompts(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """Return (positive, negative) prompts for each row of the gates, in order."""
        rows = self.all_experts if self.shared_is_gated else self.experts
        return tuple((each.positive_prompts, each.negative_prompts) for each in rows)

    @property
    def written(self) -> dict[str, Any]:
        """Return the step as a recipe says it."""
        told: dict[str, Any] = {
            "base_model": self.base_model,
            "gate_mode": self.gate_mode,
            "experts": [each.written for each in self.experts],
        }
        if self.shared:
            told["shared_experts"] = [self.shared.written]
        if self.experts_per_token is not None:
            told["experts_per_token"] = self.experts_per_token
        if self.architecture is not None:
            told["architecture"] = self.architecture
        return told

    def found(self, read: TextReader) -> MoeStep:
        """Return the step with the texts of its experts read. Raises as `read` does."""
        return dataclasses.replace(
            self,
            experts=tuple(each.found(read) for each in self.experts),
            shared=self.shared and self.shared.found(read),
        )

    def renamed(self, names: Mapping[str, str]) -> MoeStep:
        """Return the step with some models under the name that `names` has for them."""

        def of(expert: MoeExpert) -> MoeExpert:
            name = names.get(expert.source_model, expert.source_model)
            return dataclasses.replace(expert, source_model=name)

        return dataclasses.replace(
            self,
            base_model=names.get(self.base_model, self.base_model),
            experts=tuple(map(of, self.experts)),
            shared=self.shared and of(self.shared),
        )


def is_moe(document: Mapping[Any, Any]) -> bool:
    """Return whether a document makes a mixture of experts: entries have a `source_model`.

    One without entries is taken for it where nothing else says what it is.
    """
    entries: Any = document.get("experts")
    if not isinstance(entries, list):
        return False
    listed = cast("list[Any]", entries)
    named = any(isinstance(each, dict) and SOURCE_MODEL in each for each in listed)
    empty = "base_model" in document and not listed
    return named or ((empty or "gate_mode" in document) and "merge_method" not in document)

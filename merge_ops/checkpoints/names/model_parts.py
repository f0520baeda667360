"""Which part of a model a tensor belongs to, by the words in its name: no architecture table."""

from __future__ import annotations

import re

VISION = frozenset(
    {"vision_tower", "vision_model", "vision_encoder", "vision", "visual", "vit", "vpm"}
)
PROJECTOR = frozenset(
    {"multi_modal_projector", "mm_projector", "mlp1", "merger", "deepstack_merger_list"}
)
AUDIO = frozenset({"audio_tower", "audio_encoder", "audio_model"})
# Multi-token prediction under a name of its own: `mtp.` (Qwen3-Next), `model.mtp_layers.` (MiMo).
_NEXT_TOKENS = re.compile(r"(?:^|\.)(?:mtp|nextn)(?:_\w+)?\.")


def predicts_further_tokens(name: str) -> bool:
    """Return whether a tensor belongs to a part for multi-token prediction, by its name.

    Such a part works behind the last layer. DeepSeek-V3 and GLM-4.5 number it as a layer instead,
    which only config.json tells.
    """
    return _NEXT_TOKENS.search(name) is not None

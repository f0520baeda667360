"""Do two configs give the same weights the same meaning?"""

from __future__ import annotations

from collections.abc import Iterator

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import Caution, Fault

# Shapes do not show these, and with different values the same weights compute something else.
SAME_MEANING = ("model_type", "num_attention_heads", "num_key_value_heads", "head_dim")
# Merging goes on, but the expert was trained for another value.
WORTH_A_WARNING = ("rope_theta", "rope_scaling", "rms_norm_eps", "hidden_act", "sliding_window")


def config_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """Yield what gives the same weights another meaning in an expert than in the base."""
    for key in SAME_MEANING:
        ours, theirs = base.config.get(key), expert.config.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            yield Fault(
                expert.name,
                f"has {key} {theirs!r} in config.json, {base.name} has {ours!r}; the same numbers"
                " mean different weights there",
            )


def config_cautions(base: Checkpoint, expert: Checkpoint) -> Iterator[Caution]:
    """Yield what an expert was trained with and the merged checkpoint will not have."""
    for key in WORTH_A_WARNING:
        ours, theirs = base.config.get(key), expert.config.get(key)
        if key in base.config and key in expert.config and ours != theirs:
            yield Caution(
                expert.name,
                f"has {key} {theirs!r} in config.json, {base.name} has {ours!r};"
                " the merged checkpoint takes the latter",
                f"Where the expert's is meant, change {key} in the result's config.json",
            )

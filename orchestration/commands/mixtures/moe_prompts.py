"""What a mergekit-moe file says of gates: the base, and the prompts of each moe_expert."""

from dataclasses import dataclass
from pathlib import Path

from merge_ops.calibration.texts import read_texts
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes import load_steps

USUAL_CHOSEN = 2
"""Moe_experts that a token goes to where the file does not say."""


@dataclass(frozen=True)
class MoePrompts:
    """What gates follow from: `models` are the experts' source models, in the order of the rows.

    `prompts` has (positive, negative) for each row; that of a gated shared expert is the last, and
    has no model here.
    """

    base: str
    models: tuple[str, ...]
    prompts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    mode: str
    experts_per_token: int


def read_moe_prompts(path: Path) -> MoePrompts:
    """Read what a mergekit-moe file says of gates, and the texts that it names.

    Raises RecipeError with every fault, and what reading the texts raises.
    """
    step = load_steps(path).with_texts(lambda file: read_texts(Path(file))).result.moe
    if step is None:
        problem = (
            "is no mergekit-moe file, which has `base_model`, and `experts` with a `source_model`"
            " and `positive_prompts` each"
        )
        raise RecipeError(str(path), [Fault("", problem)])
    models = tuple(each.source_model for each in step.experts)
    chosen = step.experts_per_token or min(USUAL_CHOSEN, len(models))
    return MoePrompts(step.base_model, models, step.prompts, step.gate_mode, chosen)

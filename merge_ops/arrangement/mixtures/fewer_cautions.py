"""What to look at where a mixture gets fewer moe_experts: rows that go, and weight with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from merge_ops.arrangement.mixtures.fewer_choice import kept_share
from merge_ops.calibration.moe_statistics import MoeStatistics
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import Caution
from merge_ops.recipes.structures.moe_fewer import ALL, CALIBRATE, FewerStep

if TYPE_CHECKING:
    from merge_ops.arrangement.mixtures.fewer_routers import Groups


def fewer_cautions(
    model: Checkpoint,
    step: FewerStep,
    statistics: MoeStatistics,
    groups: Mapping[int, Groups],
    keep: int,
) -> Iterator[Caution]:
    """Yield what a step changes of what the model says, as far as the statistics know.

    `groups` are those that the moe_experts of each layer become, `keep` their number.
    """
    if keep == statistics.experts:
        return
    if step.merges:
        if step.router not in (ALL, CALIBRATE):
            problem = f"keeps {keep} rows of {statistics.experts} in each router, so tokens choose"
            problem += " otherwise even where merged moe_experts were equal"
            advice = "`router: calibrate` fits the rows on texts; `all` keeps them, and the size"
            yield Caution(model.name, problem, advice)
        return
    shares = {layer: kept_share(statistics.layers[layer], groups[layer]) for layer in groups}
    worst = min(shares, key=lambda layer: (shares[layer], layer))
    lost = 100 * (1 - shares[worst])
    if lost > 0:
        mean = 100 * (1 - sum(shares.values()) / len(shares))
        problem = f"loses moe_experts that had {mean:.3g} % of the router's weight on the"
        problem += f" calibration texts, and {lost:.3g} % in layer {worst}"
        yield Caution(model.name, problem, "Score the result beside the model")
    if not _renormalises(model):
        problem = "does not renormalise the weights of the chosen (`norm_topk_prob: false`), so"
        problem += " those that stay weigh more than before even where no token changes its choice"
        yield Caution(model.name, problem, "")


def _renormalises(model: Checkpoint) -> bool:
    """Whether the weights of the chosen moe_experts add up to 1."""
    return model.config.get("model_type") == "mixtral" or bool(model.config.get("norm_topk_prob"))

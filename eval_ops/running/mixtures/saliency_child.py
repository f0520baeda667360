"""What the child that runs models is asked of a mixture: what its moe_experts do on texts.

The child is started by assets/work; nothing of it is imported here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from eval_ops.running.mixtures.asked_model import asked_model
from eval_ops.running.mixtures.moe_saliency import measure_moe, packed


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Measure the mixture in `folder` on `texts`, and return the arrays of each layer.

    Tells [steps done, steps] on the way. Raises what `measure_moe` raises.
    """
    model = asked_model(request, tell)
    found = measure_moe(model.folder, request["texts"], model.device, model.told)
    return {"layers": packed(found.layers), "total": found.total, "chosen": found.chosen}

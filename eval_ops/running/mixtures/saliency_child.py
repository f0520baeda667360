"""What the child that runs models is asked of a mixture: what its moe_experts do on texts.

The child is started by assets/work; nothing of it is imported here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval_ops.running.foreign_work import limit_tokenizers
from eval_ops.running.mixtures.moe_saliency import measure_moe, packed
from eval_ops.running.pinning import set_threads


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Measure the mixture in `folder` on `texts`, and return the arrays of each layer.

    Tells [steps done, steps] on the way. Raises what `measure_moe` raises.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    if request["threads"]:
        set_threads(int(request["threads"]))
    found = measure_moe(
        Path(request["folder"]),
        request["texts"],
        str(request["device"]),
        lambda done, whole: tell([done, whole]),
    )
    return {"layers": packed(found.layers), "total": found.total, "chosen": found.chosen}

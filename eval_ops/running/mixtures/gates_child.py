"""What the child that runs models is asked of a base: gates of a router, or how prompts are routed.

The child is started by assets/work; nothing of it is imported here. Numbers travel as base64.
"""

from collections.abc import Callable, Mapping
from typing import Any

from eval_ops.running.mixtures.asked_model import asked_model
from eval_ops.running.mixtures.gates import measure_gates, packed, route_prompts, unpacked


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Measure gates (`what` is `measure`) or route texts (`route`) with the base in `folder`.

    Tells [steps done, steps] on the way. Raises what `measure_gates` and `route_prompts` raise.
    """
    model = asked_model(request, tell)
    if request["what"] == "measure":
        prompts = [(each["positive"], each["negative"]) for each in request["prompts"]]
        gates = measure_gates(model.folder, prompts, str(request["mode"]), model.device, model.told)
        return {"gates": [packed(each) for each in gates]}
    gates = [unpacked(each) for each in request["gates"]]
    chosen = int(request["experts_per_token"])
    texts = request["texts"]
    shares = route_prompts(model.folder, texts, gates, chosen, model.device, model.told)
    return {"shares": [packed(each) for each in shares]}

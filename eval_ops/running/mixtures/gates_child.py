"""What the child that runs models is asked of a base: gates of a router, or how prompts are routed.

The child is started by assets/work; nothing of it is imported here. Numbers travel as base64.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval_ops.running.foreign_work import limit_tokenizers
from eval_ops.running.mixtures.gates import measure_gates, packed, route_prompts, unpacked
from eval_ops.running.pinning import set_threads


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Measure gates (`what` is `measure`) or route texts (`route`) with the base in `folder`.

    Tells [steps done, steps] on the way. Raises what `measure_gates` and `route_prompts` raise.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    if request["threads"]:
        set_threads(int(request["threads"]))
    folder, device = Path(request["folder"]), str(request["device"])

    def told(done: int, whole: int) -> None:
        tell([done, whole])

    if request["what"] == "measure":
        prompts = [(each["positive"], each["negative"]) for each in request["prompts"]]
        gates = measure_gates(folder, prompts, str(request["mode"]), device, told)
        return {"gates": [packed(each) for each in gates]}
    gates = [unpacked(each) for each in request["gates"]]
    chosen = int(request["experts_per_token"])
    shares = route_prompts(folder, request["texts"], gates, chosen, device, told)
    return {"shares": [packed(each) for each in shares]}

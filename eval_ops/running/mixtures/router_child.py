"""What the child that runs models is asked to fit the routers of a mixture.

The child is started by assets/work; nothing of it is imported here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from eval_ops.running.mixtures.asked_model import asked_model
from eval_ops.running.mixtures.gates import packed, unpacked
from eval_ops.running.mixtures.router_walk import CalibratingDecoder, RouterSource


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Fit the routers of the mixture in `folder` to `sources`, and return their rows by layer.

    Tells [layers done, layers] on the way. Raises what `CalibratingDecoder` raises.
    """
    model = asked_model(request, tell)
    sources = [
        RouterSource(each["texts"], {int(at): unpacked(rows) for at, rows in each["rows"].items()})
        for each in request["sources"]
    ]
    told = request["groups"]
    groups = None if told is None else {int(layer): each for layer, each in told.items()}
    decoder = CalibratingDecoder(model.folder, sources, groups, model.device)
    found = decoder.calibrate(model.told)
    rows = {str(layer): packed(each) for layer, each in found.rows.items()}
    return {"rows": rows, "before": found.before, "after": found.after}

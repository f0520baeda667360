"""What the child that runs models is asked to fit the routers of a mixture.

The child is started by assets/work; nothing of it is imported here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval_ops.running.foreign_work import limit_tokenizers
from eval_ops.running.mixtures.gates import packed, unpacked
from eval_ops.running.mixtures.router_walk import CalibratingDecoder, RouterSource
from eval_ops.running.pinning import set_threads


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Fit the routers of the mixture in `folder` to `sources`, and return their rows by layer.

    Tells [layers done, layers] on the way. Raises what `CalibratingDecoder` raises.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    if request["threads"]:
        set_threads(int(request["threads"]))
    sources = [
        RouterSource(each["texts"], {int(at): unpacked(rows) for at, rows in each["rows"].items()})
        for each in request["sources"]
    ]
    told = request["groups"]
    groups = None if told is None else {int(layer): each for layer, each in told.items()}
    decoder = CalibratingDecoder(Path(request["folder"]), sources, groups, str(request["device"]))
    found = decoder.calibrate(lambda done, whole: tell([done, whole]))
    rows = {str(layer): packed(each) for layer, each in found.rows.items()}
    return {"rows": rows, "before": found.before, "after": found.after}

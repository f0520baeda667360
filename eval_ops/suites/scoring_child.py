"""What the child that runs models is asked of a checkpoint: its scores on a suite.

The child is started by assets/work; nothing of it is imported here. A suite is sent once to each
child, with all its items; afterwards its digest names it. The model in memory stays, so that the
next checkpoint of the same form pays for its weights alone.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval_ops.running.foreign_work import limit_tokenizers
from eval_ops.suites.evaluator import Evaluator
from eval_ops.suites.suite_json import suite_from_json

_evaluators: dict[tuple[str, str, int, int], Evaluator] = {}


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Return the scores of the checkpoint in `folder`, or `needs: suite` where it is not known.

    Tells [answers given, answers asked for] on the way. Raises EvalError as `Evaluator.score` does.
    """
    device, threads, cores = request["device"], int(request["threads"]), int(request["cores"])
    key = (str(request["suite_digest"]), str(device), threads, cores)
    if key not in _evaluators:
        if "suite" not in request:
            return {"needs": "suite"}
        _evaluators.clear()  # one model in memory is enough
        suite = suite_from_json(request["suite"])
        _evaluators[key] = Evaluator(suite, device, threads or None, cores=cores)
    limit_tokenizers(int(request["tokenizer_seconds"]))
    some = {"items": request["items"]} if "items" in request else {}
    scores = _evaluators[key].score(
        Path(request["folder"]), lambda done, total: tell([done, total]), **some
    )
    return {
        "scores": scores.to_json(),
        "samples": b64encode(scores.samples_to_parquet()).decode("ascii"),
    }

"""What is about to be written is looked at: would transformers load it? Knows no Dagster.

An answer follows from a config and shapes alone, and is kept as long as the process lives: the
candidates of a recipe have the same.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merge_ops.plans import Plan
    from merge_ops.plans.agreement.expected_tensors import Answer, LoadingChild

MOST_KEPT = 1000
_ANSWERS: "dict[bytes, Answer]" = {}


def refuse_unloadable(plan: "Plan") -> None:
    """Raise CompatibilityError where transformers would draw tensors of the output at random.

    It is asked in a limited child, which runs no remote code, reads headers alone, and is started
    for what was not asked before. Where transformers is not installed, or does not know the model,
    nothing is said: the rules of merge_ops.plans.agreement.layer_rules hold for every plan.
    """
    from merge_ops.plans.agreement.expected_tensors import IN_A_RECIPE, can_look, finding_of_plan

    if can_look(plan):
        with _Asker() as asker:
            finding = finding_of_plan(plan, asker.ask, IN_A_RECIPE)
        finding.raise_faults(f"{plan.recipe.subject}: nothing is merged")


class _Asker:
    """Asks a child that is started when it is needed."""

    def __init__(self) -> None:
        self._child: LoadingChild | None = None

    def __enter__(self) -> "_Asker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def ask(self, request: Mapping[str, Any]) -> "Answer":
        from blake3 import blake3

        from merge_ops.plans.agreement.expected_tensors import LoadingChild

        key = blake3(json.dumps(request, sort_keys=True, default=str).encode()).digest()
        if key not in _ANSWERS:
            if self._child is None:
                self._child = LoadingChild()
            answer = self._child.ask(request)
            if answer["state"] == "unknown":  # perhaps of this moment alone
                return answer
            while len(_ANSWERS) >= MOST_KEPT:
                del _ANSWERS[next(iter(_ANSWERS))]
            _ANSWERS[key] = answer
        return _ANSWERS[key]

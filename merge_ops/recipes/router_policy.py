"""`router: merge | base | expert:NAME`: what becomes of the tensors that choose moe_experts.

A router's choice is a softmax and a top-k, so small changes of it send tokens elsewhere. Left out
it is merged as every tensor is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_ops.errors import Fault, did_you_mean

KEY = "router"
MERGE, BASE, EXPERT = "merge", "base", "expert:"
_LATER = "calibrate"
_ALLOWED = f"{MERGE}, {BASE}, {EXPERT}NAME (one of the recipe's models)"


@dataclass(frozen=True)
class RouterPolicy:
    """A router policy merges routers, or takes them as they are from the base or from `expert`."""

    kind: str
    expert: str | None = None

    @property
    def written(self) -> dict[str, str]:
        """Return the policy as a recipe says it."""
        return {KEY: f"{EXPERT}{self.expert}" if self.expert else self.kind}


def router_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `router`, told from the document alone."""
    value = document.get(KEY)
    if value is None:
        return
    if value == _LATER:
        problem = f"is '{_LATER}', which is not there yet; allowed: {_ALLOWED}"
        yield Fault(KEY, f"{problem}. `{BASE}` is the safest without calibration texts")
    elif isinstance(value, str) and value.startswith(EXPERT) and len(value) > len(EXPERT):
        return
    elif value not in (MERGE, BASE):
        hint = did_you_mean(str(value), (MERGE, BASE, EXPERT))
        yield Fault(KEY, f"is {value!r}; allowed: {_ALLOWED}.{hint}")
    elif value == BASE and not document.get("base_model") and "experts" not in document:
        yield Fault(KEY, f"is '{BASE}', and the recipe has no `base_model`: name one, or an expert")


def router_policy(document: Mapping[str, Any]) -> RouterPolicy | None:
    """Return the policy of a document without faults; None where routers are merged unasked."""
    value = document.get(KEY)
    if value is None:
        return None
    if str(value).startswith(EXPERT):
        return RouterPolicy(EXPERT.rstrip(":"), str(value).removeprefix(EXPERT))
    return RouterPolicy(str(value))

"""What the benchmarks merge: one mergekit file for each method, which both programs take."""

import json
from collections.abc import Sequence
from pathlib import Path

# Parameters of each model beside its weight; None where mergekit takes no weights either.
OF_EACH_MODEL: dict[str, dict[str, float] | None] = {
    "linear": {},
    "slerp": None,
    "nuslerp": {},
    "multislerp": {},
    "karcher": None,
    "task_arithmetic": {},
    "ties": {"density": 0.2},
    "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "della": {"density": 0.5, "epsilon": 0.2},
    "della_linear": {"density": 0.5, "epsilon": 0.2},
    "breadcrumbs": {"density": 0.5, "gamma": 0.01},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.01},
    "sce": None,
    "model_stock": None,
    "arcee_fusion": None,
    "nearswap": None,
    "ram": None,
    "ramplus_tl": None,
}
OF_THE_MERGE: dict[str, dict[str, float]] = {
    "slerp": {"t": 0.4},
    "sce": {"select_topk": 0.2},
    "nearswap": {"t": 1e-3},
}
EXPERTS_TAKEN = {"slerp": 1, "nearswap": 1, "arcee_fusion": 1, "nuslerp": 2}
BASE_IS_A_MODEL = ("linear", "slerp")  # of weight 0.5 in linear
WITHOUT_BASE = ("nuslerp", "multislerp", "karcher")
RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
METHODS = tuple(OF_EACH_MODEL)


def experts_of(method: str, offered: int) -> int | None:
    """How many of so many experts the method merges; None where they are too few."""
    taken = EXPERTS_TAKEN.get(method, offered)
    least = 2 if method == "model_stock" else taken
    return taken if least <= offered else None


def recipe(method: str, base: Path, experts: Sequence[Path], **of_the_merge: object) -> str:
    """The file for a method, with further parameters of the merge; JSON is YAML."""
    content: dict[str, object] = {"merge_method": method, "dtype": "bfloat16"}
    if method not in WITHOUT_BASE:
        content["base_model"] = str(base)
    own = OF_EACH_MODEL[method]
    models: list[dict[str, object]] = [{"model": str(expert)} for expert in experts]
    if method in BASE_IS_A_MODEL:
        models.insert(0, {"model": str(base)})
    if own is not None:
        for model in models:
            weight = 0.5 if model["model"] == str(base) else 1 / len(experts)
            model["parameters"] = {"weight": weight, **own}
    content["models"] = models
    parameters = {**OF_THE_MERGE.get(method, {}), **of_the_merge}
    if parameters:
        content["parameters"] = parameters
    return json.dumps(content, indent=2)

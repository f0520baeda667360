"""Keeps the requests that lm-eval builds of a task, so that the next checkpoint is asked the same.

lm-eval makes the prompts of a task anew for every model it evaluates. Here all models of a run get
the same prompts, and building them costs as much as a small model's answers.
"""

import weakref
from typing import Any

KEPT = 8
"""Sets of questions of one task whose requests are kept: all, and those of a sequential test."""


def keep_requests(task: Any) -> None:
    """Have a task of lm-eval build the requests of the same questions only once.

    Prompts in a chat template are those of one tokenizer, and are built again for another.
    """
    if hasattr(task, "kept_requests"):
        return
    build = task.build_all_requests
    kept: dict[Any, tuple[Any, Any]] = {}
    task.kept_requests = kept

    def build_once(**arguments: Any) -> None:
        template = arguments.get("chat_template")
        owner = getattr(template, "__self__", None)
        places = arguments.get("samples")
        rest = {name: arguments[name] for name in sorted(arguments)}
        rest |= {"samples": None if places is None else tuple(places), "chat_template": None}
        key = tuple(rest.items())
        known, asked = kept.get(key, (None, None))
        if known is not None and (template is None or (asked is not None and asked() is owner)):
            for request in known:
                request.resps, request.filtered_resps = [], {}
            task._instances = known
            return
        build(**arguments)
        if len(kept) >= KEPT:
            del kept[next(iter(kept))]
        kept[key] = (task._instances, None if owner is None else weakref.ref(owner))

    task.build_all_requests = build_once

"""Does the output hold what its architecture expects? transformers is asked, in a child process.

The child (children/loading_child.py) loads names and shapes on torch's meta device, which takes
seconds for its imports and hardly any memory. It works while the merge does. Where something is
wrong with the output it is asked about the base as well: what loading would fill with random values
is refused, and other oddities that the base has too are told of.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_ops.children import ClosedAtEnd, LimitedChild
from merge_ops.children.model_view import HIDDEN
from merge_ops.errors import Caution, ChildError, CompatibilityError, Fault
from merge_ops.plans.plan import Plan

MODULE = "merge_ops.children.loading_child"
MEMORY = 6 << 30  # bytes of data; torch and transformers take half a GiB
CPU_SECONDS = 3600  # for one answer; the largest configs take a minute
PATIENCE = 600.0  # seconds for one answer; see docs/timeouts.md
MOST_NAMED = 5
_POOLER = re.compile(r"(^|\.)pooler\.")
_KINDS = ("missing", "unexpected", "mismatched")
_WAY_OUT = "`--no-verify` merges without this check"
IN_A_RECIPE = "`verify: false` in the recipe merges without this check"

_NAMED_NOT = (
    "it names no class (`architectures`), and of those that its model_type may be this fits best: "
    "name the class in config.json of the base; "
)

Answer = Mapping[str, Any]
Ask = Callable[[Mapping[str, Any]], Answer]


@dataclass(frozen=True)
class Finding:
    """A finding says how transformers would load an output.

    `loaded_as` is the class, empty where none was found; `not_looked` why nothing could be said.
    """

    loaded_as: str = ""
    faults: tuple[Fault, ...] = ()
    cautions: tuple[Caution, ...] = ()
    not_looked: str = ""

    def raise_faults(self, subject: str) -> None:
        """Raise CompatibilityError with all faults, where there are any."""
        if self.faults:
            raise CompatibilityError(subject, self.faults)


class LoadingChild:
    """A child process that says how transformers would load tensors, until it is closed."""

    def __init__(self) -> None:
        self._gone = False
        self._child = LimitedChild(
            MODULE,
            memory=MEMORY,
            cpu_seconds=CPU_SECONDS,
            hidden=HIDDEN,
            environment={"HF_DEACTIVATE_ASYNC_LOAD": "1"},  # threads for tensors without values
        )
        self._child.start()

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """Return the answer to a request (see loading_child); `unknown` where there is none."""
        if self._gone:
            return {"state": "unknown", "why": "the child process was ended"}
        try:
            return self._child.ask(request, "asks transformers how it would load the output")
        except ChildError as error:
            return {"state": "unknown", "why": str(error)}

    def kill(self) -> None:
        """End the process; whoever waits for an answer gets one that says so."""
        self._gone = True
        self._child.kill()

    def close(self) -> None:
        """Wait for the end of the process and remove its folder."""
        self.kill()
        self._child.close()


def finding_of_plan(plan: Plan, ask: Ask, way_out: str = _WAY_OUT) -> Finding:
    """Return the finding on what a plan will write; `ask` asks a loading child.

    `way_out` says how to merge without the check.
    """
    shapes = [(step.output.name, step.output.shape) for step in plan.steps]
    return _judged(plan, ask(_request(plan, plan.config, shapes)), ask, way_out)


def _judged(plan: Plan, output: Answer, ask: Ask, way_out: str = _WAY_OUT) -> Finding:
    base = plan.base
    if output["state"] == "unknown" or _is_sound(output):
        return judged(output, output, base.name, way_out)
    shapes = [(name, entry.shape) for name, entry in base.tensors.items()]
    return judged(output, ask(_request(plan, base.config, shapes)), base.name, way_out)


class ExpectedTensors(ClosedAtEnd):
    """The check of one plan by a child process, from its start until the context ends."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pool = ThreadPoolExecutor(1, "expected")
        self._child = LoadingChild()
        self._planned: Future[Finding] = self._pool.submit(finding_of_plan, plan, self._child.ask)

    def close(self) -> None:
        """End the child and remove its folder."""
        self._child.kill()  # a thread that waits for an answer has none
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._child.close()

    @property
    def ready(self) -> bool:
        """Return whether `of_plan` returns at once."""
        return self._planned.done()

    def of_plan(self) -> Finding:
        """Wait for the finding on what the plan will write, and return it."""
        return self._answer(self._planned)

    def of_files(self, folder: Path) -> Finding:
        """Return the finding on a folder that was written; its files are opened, not read."""
        return self._answer(self._pool.submit(self._look_at_files, folder))

    def _answer(self, pending: Future[Finding]) -> Finding:
        try:
            return pending.result(timeout=PATIENCE)
        except TimeoutError:
            self._child.kill()
            return Finding(not_looked=f"there was no answer in {PATIENCE:.0f} s")

    def _look_at_files(self, folder: Path) -> Finding:
        named = {"architectures": _architectures(self._plan)}
        answer = self._child.ask({"folder": str(folder.absolute()), **named})
        return _judged(self._plan, answer, self._child.ask)


def can_look(plan: Plan) -> bool:
    """Return whether there is somebody to ask: a config that names a model, and transformers."""
    named = any(plan.config.get(key) for key in ("model_type", "architectures"))
    return named and all(
        importlib.util.find_spec(name) is not None for name in ("torch", "transformers")
    )


def judged(output: Answer, base: Answer, base_name: str, way_out: str = _WAY_OUT) -> Finding:
    """Return the finding that follows from the answers on an output and on its base.

    What is missing or of another shape is a fault: loading would put random values there. Poolers
    that the base lacks too are left to a caution: encoders are saved without them and used so. What
    is left over, as in the base, is a caution. Where the config names no class, the class that fits
    best was taken, and what is missing then is missing in whatever it may be.
    """
    if output["state"] == "unknown":
        return Finding(not_looked=str(output["why"]))
    if output["state"] == "failed":
        problem = f"cannot be loaded by transformers ({output['why']})"
        if base["state"] == "looked":
            return Finding(faults=(Fault("the output", f"{problem}; {way_out}"),))
        caution = Caution("the output", f"{problem}, and neither can {base_name}", _LOOK)
        return Finding(cautions=(caution,))
    name = str(output["loaded_as"])
    way_out = f"{_NAMED_NOT}{way_out}" if output.get("guessed") else way_out
    faults: list[Fault] = []
    cautions: list[Caution] = []
    for kind in _KINDS:
        known = {_pattern(each) for each in base.get(kind, ())}
        looked = base["state"] == "looked"
        old = [
            each
            for each in output[kind]
            if (_pattern(each) in known or not looked)
            and (kind == "unexpected" or _POOLER.search(_pattern(each)))
        ]
        new = [each for each in output[kind] if each not in old]
        if new:
            faults.append(Fault("the output", f"{_told(kind, new, name)}; {way_out}"))
        if old:
            problem = f"{_told(kind, old, name)}; so it is with {base_name}"
            cautions.append(Caution("the output", problem, _LOOK))
    return Finding(name, tuple(faults), tuple(cautions))


_LOOK = "Look whether the base is whole and of the architecture that its config.json names"


def _is_sound(answer: Answer) -> bool:
    return answer["state"] == "looked" and not any(answer[kind] for kind in _KINDS)


def _pattern(entry: Any) -> str:
    return re.sub(r"\d+", "#", entry if isinstance(entry, str) else str(entry[0]))


def _told(kind: str, entries: list[Any], name: str) -> str:
    if kind == "mismatched":
        shown = [f"'{each[0]}' as {each[1]}, expected {each[2]}" for each in entries[:MOST_NAMED]]
        return f"has other shapes than {name} of its config.json expects: {_joined(shown, entries)}"
    shown = [f"'{each}'" for each in entries[:MOST_NAMED]]
    if kind == "missing":
        what = "and loading would put random values there"
        return f"lacks {_joined(shown, entries)}, which {name} of its config.json expects, {what}"
    return f"has {_joined(shown, entries)}, which {name} of its config.json does not know"


def _joined(shown: list[str], entries: list[Any]) -> str:
    rest = len(entries) - len(shown)
    return ", ".join(shown) + (f" and {rest} more tensors" if rest else "")


def _request(
    plan: Plan, config: Mapping[str, Any], shapes: Iterable[tuple[str, tuple[int, ...]]]
) -> dict[str, Any]:
    named = dict(config)
    if not named.get("architectures") and (classes := _architectures(plan)) is not None:
        named["architectures"] = classes
    return {"config": named, "tensors": [[name, list(shape)] for name, shape in shapes]}


def _architectures(plan: Plan) -> Any | None:
    """The class of a plan's output: the config's own, or the one that its inputs agree on."""
    named = [one.config for one in plan.checkpoints]
    found = [each["architectures"] for each in named if each.get("architectures")]
    own = plan.config.get("architectures")
    return own or (found[0] if found and all(each == found[0] for each in found) else None)

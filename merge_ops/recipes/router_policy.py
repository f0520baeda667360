"""`router: merge | base | expert:NAME | calibrate`: the tensors that choose moe_experts.

    router: calibrate      texts: {a: math.jsonl, b: code.jsonl}      (or one file for all models)

A router's choice is a softmax and a top-k, so small changes of it send tokens elsewhere. Left out
it is merged as every tensor is. `calibrate` fits its rows, on texts of each model, to route as the
models do (eval_ops.running.mixtures.router_fit).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from merge_ops.calibration.texts import CalibrationTexts, TextReader
from merge_ops.errors import Fault, did_you_mean, quoted

KEY, TEXTS = "router", "texts"
MERGE, BASE, EXPERT, CALIBRATE = "merge", "base", "expert:", "calibrate"
OF_ALL = ""
"""The name under which one file is for every model."""
_WORDS = (MERGE, BASE, CALIBRATE)
_ALLOWED = f"{MERGE}, {BASE}, {EXPERT}NAME (one of the recipe's models), {CALIBRATE}"
_SEVERAL = ("sweep", "search", "soup")
_MIXED = ("slices", "modules")


@dataclass(frozen=True)
class RouterPolicy:
    """A router policy merges routers, takes them from the base or from `expert`, or fits them.

    `texts` are what they are fitted on: by the names of models, or one file for all (OF_ALL).
    """

    kind: str
    expert: str | None = None
    texts: Mapping[str, CalibrationTexts] = field(default_factory=dict[str, CalibrationTexts])

    @property
    def calibrates(self) -> bool:
        """Return whether rows are fitted on texts."""
        return self.kind == CALIBRATE

    @property
    def written(self) -> dict[str, Any]:
        """Return the policy as a recipe says it."""
        told: dict[str, Any] = {KEY: f"{EXPERT}{self.expert}" if self.expert else self.kind}
        if self.texts:
            files = {name: each.file for name, each in self.texts.items()}
            told[TEXTS] = files.get(OF_ALL, files)
        return told

    def texts_of(self, model: str) -> CalibrationTexts | None:
        """Return the texts of a model, None where none are named for it."""
        return self.texts.get(model) or self.texts.get(OF_ALL)

    def found(self, read: TextReader) -> RouterPolicy:
        """Return the policy with its texts read."""
        texts = {name: each.found(read) for name, each in self.texts.items()}
        return dataclasses.replace(self, texts=texts)

    def renamed(self, names: Mapping[str, str]) -> RouterPolicy:
        """Return the policy with some models under the name that `names` has for them."""
        expert = None if self.expert is None else names.get(self.expert, self.expert)
        texts = {names.get(name, name): each for name, each in self.texts.items()}
        return dataclasses.replace(self, expert=expert, texts=texts)


def router_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `router` and `texts`, told from the document alone."""
    value = document.get(KEY)
    if value != CALIBRATE and TEXTS in document:
        yield Fault(TEXTS, f"has no effect without `{KEY}: {CALIBRATE}`; remove it")
    if value is None:
        return
    if value == CALIBRATE:
        yield from _calibration_faults(document)
    elif isinstance(value, str) and value.startswith(EXPERT) and len(value) > len(EXPERT):
        return
    elif value not in (MERGE, BASE):
        hint = did_you_mean(str(value), (*_WORDS, EXPERT))
        yield Fault(KEY, f"is {value!r}; allowed: {_ALLOWED}.{hint}")
    elif value == BASE and not document.get("base_model") and "experts" not in document:
        yield Fault(KEY, f"is '{BASE}', and the recipe has no `base_model`: name one, or an expert")


def _calibration_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    for key in _SEVERAL:
        if document.get(key):
            problem = f"is '{CALIBRATE}', which fits the routers of one checkpoint, and `{key}`"
            yield Fault(KEY, f"{problem} makes several; write the one point that you want")
    for key in _MIXED:
        if document.get(key):
            yield Fault(KEY, f"is '{CALIBRATE}', which is for whole models; `{key}` mixes layers")
    value = document.get(TEXTS)
    example = f"`{TEXTS}: {{MODEL: FILE, …}}`, or one FILE for all"
    if value is None:
        yield Fault(TEXTS, f"is missing; `{KEY}: {CALIBRATE}` is fitted on some: write {example}")
        return
    table = {OF_ALL: value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not table:
        yield Fault(TEXTS, f"is {quoted(value)}; write {example}")
        return
    for name, file in cast("dict[Any, Any]", table).items():
        where = f"{TEXTS}.{name}" if name != OF_ALL else TEXTS
        if not isinstance(name, str) or not isinstance(file, str) or not file.strip():
            problem = f"is {quoted(file)}; it must name a file: one text a line, or .jsonl with"
            yield Fault(where, f"{problem} `text`")


def router_policy(document: Mapping[str, Any]) -> RouterPolicy | None:
    """Return the policy of a document without faults; None where routers are merged unasked."""
    value = document.get(KEY)
    if value is None:
        return None
    if str(value).startswith(EXPERT):
        return RouterPolicy(EXPERT.rstrip(":"), str(value).removeprefix(EXPERT))
    if value != CALIBRATE:
        return RouterPolicy(str(value))
    told: Any = document[TEXTS]
    files = {OF_ALL: told} if isinstance(told, str) else cast("dict[str, str]", told)
    texts = {name: CalibrationTexts(file) for name, file in files.items()}
    return RouterPolicy(CALIBRATE, texts=texts)

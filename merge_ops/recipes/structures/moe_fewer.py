"""Steps that leave fewer moe_experts in each layer of a mixture: `moe:`.

    moe: {keep: 4, method: reap, statistics: saliency.safetensors}    models: [{model: ./mixtral}]
    moe: {keep: 0.5, method: hc_smoe, texts: notes.jsonl, router: calibrate}

`reap` and `frequency` leave moe_experts out, `hc_smoe` and `m_smoe` merge groups of them. What each
did on calibration texts stands in a file that `ronghe moe-saliency` wrote, or is measured on
`texts` when the step is made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.calibration.texts import CalibrationTexts, TextReader
from merge_ops.errors import Fault, did_you_mean, quoted
from merge_ops.recipes.router_policy import CALIBRATE
from merge_ops.recipes.structures.one_model import one_model_faults

MOE = "moe"
PRUNING, MERGING = ("reap", "frequency"), ("hc_smoe", "m_smoe")
METHODS = (*PRUNING, *MERGING)
FIRST, MEAN, ALL = "first", "mean", "all"
ROUTERS = (FIRST, MEAN, ALL, CALIBRATE)
MATCHED, AS_THEY_ARE = NEURONS = ("matched", "as_they_are")
USUAL_NEURONS = {"m_smoe": MATCHED}
_KEYS = ("keep", "method", "statistics", "texts", "experts_per_token", "router", "neurons")


@dataclass(frozen=True)
class FewerStep:
    """A step of fewer moe_experts keeps some in each layer, chosen by a method from statistics.

    `keep` is a number (int) or a share (float below 1). `router` says what becomes of the rows of
    those that are merged: the row of the most used one stays (`first`), the weighted mean of all
    (`mean`), every row stays and the members of a group become equal (`all`), or one row a group is
    fitted on `texts` (`calibrate`). Statistics come from a file, or without one from `texts`.
    `neurons` says whether members are brought into one order first.
    """

    keep: int | float
    method: str
    statistics: str | None
    experts_per_token: int | None = None
    router: str = FIRST
    neurons: str = AS_THEY_ARE
    texts: CalibrationTexts | None = None

    @property
    def matches_neurons(self) -> bool:
        """Return whether members of a group are brought into one order before they are merged."""
        return self.neurons == MATCHED

    @property
    def calibrates(self) -> bool:
        """Return whether rows of routers are fitted on texts."""
        return self.router == CALIBRATE

    @property
    def measures(self) -> bool:
        """Return whether numbers must be measured on texts before the step is whole."""
        return self.texts is not None

    def found(self, read: TextReader) -> FewerStep:
        """Return the step with its texts read."""
        return dataclasses.replace(self, texts=self.texts and self.texts.found(read))

    @property
    def merges(self) -> bool:
        """Return whether groups of moe_experts are merged, and none is left out."""
        return self.method in MERGING

    def number_of(self, experts: int) -> int:
        """Return how many of `experts` moe_experts are kept; a share is rounded up."""
        if isinstance(self.keep, int):
            return self.keep
        return math.ceil(round(self.keep * experts, 9))

    @property
    def written(self) -> dict[str, Any]:
        """Return the step as a recipe says it."""
        table: dict[str, Any] = {"keep": self.keep, "method": self.method}
        if self.statistics is not None:
            table["statistics"] = self.statistics
        if self.texts is not None:
            table["texts"] = self.texts.file
        if self.experts_per_token is not None:
            table["experts_per_token"] = self.experts_per_token
        if self.merges:
            table["router"] = self.router
            table["neurons"] = self.neurons
        return {MOE: table}


def fewer_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `moe`, told from the document alone."""
    if MOE not in document:
        return
    yield from one_model_faults(
        document, MOE, "which changes one mixture", hints={"router": f"write it below `{MOE}`"}
    )
    value = document[MOE]
    if not isinstance(value, dict):
        example = "{keep: 4, method: reap, statistics: FILE}"
        yield Fault(MOE, f"is {quoted(value)}; it must be a mapping such as `{example}`")
        return
    yield from _table_faults(cast("dict[Any, Any]", value))


def _table_faults(table: Mapping[Any, Any]) -> Iterator[Fault]:
    for name in table:
        if name not in _KEYS:
            hint = did_you_mean(str(name), _KEYS)
            yield Fault(f"{MOE}.{name}", f"is unknown; allowed: {', '.join(_KEYS)}.{hint}")
    keep = table.get("keep")
    whole = type(keep) is int and keep >= 1
    if not whole and not (type(keep) is float and 0 < keep < 1):
        told = f"is {quoted(keep)}" if "keep" in table else "is missing"
        problem = f"{told}; it must be a whole number from 1 on, the moe_experts of each layer, or"
        yield Fault(f"{MOE}.keep", f"{problem} a share of them between 0 and 1")
    method = table.get("method")
    if method not in METHODS:
        told = f"is {quoted(method)}" if "method" in table else "is missing"
        hint = did_you_mean(str(method), METHODS)
        yield Fault(f"{MOE}.method", f"{told}; allowed: {', '.join(METHODS)}.{hint}")
    yield from _measured_faults(table)
    chosen = table.get("experts_per_token")
    if chosen is not None and (type(chosen) is not int or chosen < 1):
        problem = f"is {quoted(chosen)}; it must be a whole number from 1 on"
        yield Fault(f"{MOE}.experts_per_token", problem)
    yield from _neuron_faults(table)
    router = table.get("router")
    if router is not None and router not in ROUTERS:
        hint = did_you_mean(str(router), ROUTERS)
        problem = f"is {quoted(router)}; allowed: {', '.join(ROUTERS)}.{hint}"
        yield Fault(f"{MOE}.router", problem)
    elif router is not None and method in PRUNING:
        problem = f"has no effect on {method}, which leaves rows out; remove it"
        yield Fault(f"{MOE}.router", problem)


def _neuron_faults(table: Mapping[Any, Any]) -> Iterator[Fault]:
    asked, method = table.get("neurons"), table.get("method")
    if asked is not None and asked not in NEURONS:
        hint = did_you_mean(str(asked), NEURONS)
        problem = f"is {quoted(asked)}; allowed: {', '.join(NEURONS)}.{hint}"
        yield Fault(f"{MOE}.neurons", problem)
    elif asked is not None and method in PRUNING:
        problem = f"has no effect on {method}, which merges nothing; remove it"
        yield Fault(f"{MOE}.neurons", problem)


def _measured_faults(table: Mapping[Any, Any]) -> Iterator[Fault]:
    """What is wrong with the files: of statistics, and of the texts that are measured on."""
    wrote = "it must name a file that `ronghe moe-saliency MODEL TEXTS --out FILE` wrote"
    if "statistics" not in table and "texts" not in table:
        yield Fault(f"{MOE}.statistics", f"is missing; {wrote}, or write `texts: FILE`")
    for key, rule in (
        ("statistics", wrote),
        ("texts", "it must name a file: one text a line, or .jsonl with `text`"),
    ):
        value = table.get(key)
        if key in table and (not isinstance(value, str) or not value.strip()):
            yield Fault(f"{MOE}.{key}", f"is {quoted(value)}; {rule}")
    fits = table.get("router") == CALIBRATE and table.get("method") not in PRUNING
    if "texts" not in table and fits:
        problem = f"is '{CALIBRATE}', which is fitted on texts; write `texts: FILE` beside it"
        yield Fault(f"{MOE}.router", problem)
    if {"statistics", "texts"} <= table.keys() and table.get("router") != CALIBRATE:
        problem = f"has no effect beside `statistics` without `router: {CALIBRATE}`; remove one"
        yield Fault(f"{MOE}.texts", problem)


def fewer_step(document: Mapping[str, Any]) -> FewerStep | None:
    """Return the step of a document without faults; None where it is another one."""
    if MOE not in document:
        return None
    table = cast("dict[str, Any]", document[MOE])
    return FewerStep(
        table["keep"],
        table["method"],
        table.get("statistics"),
        table.get("experts_per_token"),
        table.get("router") or FIRST,
        neurons=table.get("neurons") or USUAL_NEURONS.get(table["method"], AS_THEY_ARE),
        texts=CalibrationTexts(table["texts"]) if "texts" in table else None,
    )

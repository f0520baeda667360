"""`runs:` of models.yaml: training runs, whose steps are models, with every fault at once.

runs:
  - name: pretrain                              # what `window: {run: pretrain}` says
    steps: ../run                               # a folder with checkpoint-1000, …
  - name: annealed
    steps: hf://owner/name@step{step}           # revisions of a hub
    licence: apache-2.0
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.work.upstream.entries import TrainingRun
from merge_ops.errors import Fault, did_you_mean, quoted
from orchestration.catalogs.catalog import BrokenPart
from orchestration.catalogs.names import RECIPE_NAME, alike, secret_fault
from orchestration.options import OptionError, size

STEP = "{step}"
MOST_FAULTS = 50
"""Faults of one entry that are told."""
_LISTED = ("", "file", "s3", "hf")
"""Schemes of places whose steps can be listed."""


class RunDefinition(BaseModel):
    """A run definition is one entry of `runs:` as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=100)
    steps: str = Field(min_length=1)
    licence: str | None = None
    title: str | None = None
    description: str | None = None
    follow_links: bool = False
    max_size: int | str | None = None


@dataclass
class RunsSection:
    """The section holds the sound runs by name, and the parts that are broken."""

    runs: dict[str, TrainingRun] = field(default_factory=dict[str, TrainingRun])
    broken: list[BrokenPart] = field(default_factory=list[BrokenPart])


def read_runs(document: Mapping[str, Any], models: Collection[str]) -> RunsSection:
    """Read the runs of models.yaml; `models` are the names that are taken."""
    section = RunsSection()
    entries = document.get("runs")
    if entries is None:
        return section
    if not isinstance(entries, list):
        problem = "must be a list of {name, steps}, such as {name: pretrain, steps: ../run}"
        section.broken.append(BrokenPart("file", "runs", (Fault("models.yaml: runs", problem),)))
        return section
    seen: dict[str, int] = {}
    for position, entry in enumerate(entries):
        where = f"models.yaml: runs[{position}]"
        faults = list(_entry_faults(where, entry))
        name = entry.get("name") if isinstance(entry, dict) else None
        name = name if isinstance(name, str) else ""
        if name in models:
            faults.append(Fault(f"{where}.name", "is the name of a model; call the run otherwise"))
        if name in seen:
            problem = f"is '{name}', as that of runs[{seen[name]}]; names are unique"
            faults.append(Fault(f"{where}.name", problem))
        if faults:
            section.broken.append(BrokenPart("file", f"runs[{position}]", tuple(faults)))
        else:
            section.runs[name] = _run_of(entry)
        seen.setdefault(name, position)
    for name, others in alike(section.runs).items():
        problem = f"is nearly the name of {others}; many disks take them for one, so rename one"
        fault = Fault(f"models.yaml: run '{name}': name", problem)
        section.broken.append(BrokenPart("file", f"run {name}", (fault,)))
        del section.runs[name]
    return section


def _entry_faults(where: str, entry: object) -> Iterator[Fault]:
    """What is wrong with one entry by itself."""
    known = list(RunDefinition.model_fields)
    try:
        RunDefinition.model_validate(entry)
    except ValidationError as error:
        for fault in error.errors(include_url=False)[:MOST_FAULTS]:
            place = ".".join([where, *(str(part) for part in fault["loc"])])
            if fault["type"] == "extra_forbidden":
                hint = did_you_mean(str(fault["loc"][-1]), known)
                yield Fault(place, f"is no key of a run.{hint} Known: {', '.join(known)}")
            elif fault["type"] == "missing":
                yield Fault(place, "is missing")
            else:
                allowed = fault["msg"].replace("Input should", "it must", 1)
                yield Fault(place, f"is {quoted(fault['input'])}; {allowed}")
    written = entry if isinstance(entry, dict) else {}
    name, steps = written.get("name"), written.get("steps")
    if isinstance(name, str) and name and not RECIPE_NAME.fullmatch(name):
        rule = "a run's name may hold letters, digits and '_' (its steps are called name@step)"
        yield Fault(f"{where}.name", f"is {quoted(name)}; {rule}")
    most = written.get("max_size")
    if isinstance(most, int | str):
        try:
            size(str(most))
        except OptionError as error:
            yield Fault(f"{where}.max_size", f"is {quoted(most)}; it must be {error}")
    if isinstance(steps, str) and steps:
        yield from _place_faults(f"{where}.steps", steps)


def _place_faults(where: str, steps: str) -> Iterator[Fault]:
    """Whether the steps of a place can be found, as far as its address tells."""
    if problem := secret_fault(steps):
        yield Fault(where, problem)
        return
    scheme = steps.partition("://")[0] if "://" in steps else ""
    if scheme not in _LISTED:
        problem = f"is {quoted(steps)}, whose steps cannot be listed; a run is a folder, s3:// or"
        yield Fault(where, f"{problem} hf:// (pull the steps, and name the folder they are in)")
    elif steps.count(STEP) > 1:
        yield Fault(where, f"has {STEP} more than once")
    elif scheme == "hf" and "@" not in steps.partition(STEP)[0]:
        problem = f"is {quoted(steps)}; steps of the Hub are revisions: write hf://owner/name@step"
        yield Fault(where, f"{problem}{STEP}, as the repository calls them")


def _run_of(entry: Mapping[str, Any]) -> TrainingRun:
    fields = RunDefinition.model_validate(entry).model_dump()
    most = size(str(fields["max_size"])) if fields["max_size"] is not None else None
    return TrainingRun(**{**fields, "max_size": most})

"""The steps of a training run, told from names: `checkpoint-1000`, `step_2000`, `iter_0003000`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_WORDS = "checkpoint|ckpt|global_?step|step|iteration|iter|update"
_NAMED = re.compile(
    rf"(?P<before>(?:.*[-_.])?(?:{_WORDS})[-_]?)(?P<step>\d{{1,18}})", re.IGNORECASE
)
_BARE = re.compile(r"(?P<before>)(?P<step>\d{1,18})")
STEP = "{step}"


def step_of(reference: str) -> int | None:
    """Return the step that a reference ends in: of its revision, or of the last part of its path.

    None where it ends in none.
    """
    found = _match(_tail(reference))
    return int(found["step"]) if found else None


def steps_in(names: Iterable[str], run: str) -> dict[int, str]:
    """Return the steps among the names of a run's sub-folders, each with its name.

    Other names are passed over. `run` is what messages call the run. Raises ValueError where two
    names are the same step, or names count steps in two ways.
    """
    found: dict[int, str] = {}
    ways: dict[str, str] = {}
    for name in sorted(names):
        match = _match(name)
        if match is None:
            continue
        ways.setdefault(match["before"].lower(), name)
        _add(found, int(match["step"]), name, run)
    if len(ways) > 1:
        one, other = list(ways.values())[:2]
        raise ValueError(
            f"run '{run}' names steps in two ways ('{one}', '{other}'), which may count different"
            f" things; name one of them, such as '{run.rstrip('/')}/{pattern_of(one)}'"
        )
    return found


def steps_of_pattern(names: Iterable[str], pattern: str, run: str) -> dict[int, str]:
    """Return the steps among names that a pattern with one `{step}` fits, each with its name.

    Raises ValueError where two names are the same step.
    """
    before, _, behind = pattern.partition(STEP)
    fits = re.compile(rf"{re.escape(before)}(\d{{1,18}}){re.escape(behind)}")
    found: dict[int, str] = {}
    for name in sorted(names):
        match = fits.fullmatch(name)
        if match is not None:
            _add(found, int(match[1]), name, run)
    return found


def steps_of_references(references: Iterable[str], run: str) -> dict[int, str]:
    """Return the steps of listed references, each with its reference.

    Raises ValueError where one ends in no step, or two are the same.
    """
    found: dict[int, str] = {}
    for reference in references:
        step = step_of(reference)
        if step is None:
            raise ValueError(
                f"{run} lists '{reference}', which does not end in a step as 'checkpoint-1000'"
                " does; write a mapping of step to reference: `run: {1000: reference}`"
            )
        _add(found, step, reference, run)
    return found


def pattern_of(name: str) -> str:
    """Return a step's name with `{step}` for its number."""
    match = _match(name)
    return f"{match['before']}{STEP}" if match else name


def _add(found: dict[int, str], step: int, name: str, run: str) -> None:
    if step in found:
        raise ValueError(
            f"run '{run}' has step {step} twice, '{found[step]}' and '{name}', and which is meant"
            " cannot be told; move one of them away"
        )
    found[step] = name


def _match(name: str) -> re.Match[str] | None:
    return _NAMED.fullmatch(name) or _BARE.fullmatch(name)


def _tail(reference: str) -> str:
    """A reference's revision, or the last part of its path."""
    last = PurePosixPath(reference.rstrip("/")).name
    return last.rpartition("@")[2]

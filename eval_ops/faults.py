"""Finds every fault of a settings mapping at once and says each in one plain sentence."""

import difflib
import reprlib
from collections.abc import Callable, Collection

from pydantic import ValidationError

MAX_FAULTS = 50
"""Faults of one mapping that are listed."""
_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 300
_shortened.maxlist = _shortened.maxdict = _shortened.maxtuple = 10
_shortened.maxlevel = 5

Place = tuple[int | str, ...]


def quoted(value: object) -> str:
    """Return a value as a message shows it: what strangers wrote may have no end."""
    return _shortened.repr(value)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def spell(place: Place) -> str:
    """Spell a place in a mapping as a reader writes it: `benchmarks[1].items`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def list_faults(
    error: ValidationError, known_keys: Callable[[Place], Collection[str]]
) -> list[str]:
    """Turn pydantic's error into one sentence a fault.

    `known_keys(place)` gives the keys allowed in the mapping at `place`, for the did-you-mean.
    """
    return [
        _sentence(fault["type"], tuple(fault["loc"]), fault["msg"], fault.get("input"), known_keys)
        for fault in error.errors(include_url=False)[:MAX_FAULTS]
    ]


def _sentence(
    kind: str,
    place: Place,
    message: str,
    given: object,
    known_keys: Callable[[Place], Collection[str]],
) -> str:
    where = spell(place)
    if kind == "extra_forbidden":
        known = known_keys(place[:-1])
        hint = did_you_mean(str(place[-1]), known)
        return f"{where} is not a known key.{hint} Known: {', '.join(sorted(known))}"
    if kind == "missing":
        return f"{where} is missing; it must be given"
    if kind == "value_error":
        reason = message.removeprefix("Value error, ")
        return f"{where}: {reason}" if where else reason
    allowed = message.replace("Input should", "it must", 1)
    return f"{where} is {quoted(given)}; {allowed[0].lower()}{allowed[1:]}"

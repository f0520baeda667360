"""Finds every fault of a settings mapping at once and says each in one plain sentence."""

import difflib
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

Place = tuple[int | str, ...]


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key given twice instead of keeping the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build one mapping; a repeated key is a `yaml.YAMLError` that names its line."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"key '{name}' is given twice (again on line {line})")
            seen.add(name)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> tuple[Mapping[str, Any], str | None]:
    """Read a YAML mapping: (the mapping, None), or ({}, what is wrong with the text)."""
    try:
        loaded: object = yaml.load(text, UniqueKeyLoader)
    except yaml.YAMLError as error:
        return {}, f"is not valid YAML: {' '.join(str(error).split())}"
    if not isinstance(loaded, Mapping):
        given = "nothing" if loaded is None else f"a {type(loaded).__name__}"
        return {}, f"holds {given}; it must hold a mapping of keys to values"
    return cast("Mapping[str, Any]", loaded), None


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
        for fault in error.errors(include_url=False)
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
    return f"{where} is {given!r}; {allowed[0].lower()}{allowed[1:]}"


def read_text(path: Path) -> tuple[str, str | None]:
    """Read a UTF-8 text file: (text, None), or ("", what is wrong with the file)."""
    try:
        return path.read_text(encoding="utf-8"), None
    except FileNotFoundError:
        return "", "does not exist"
    except UnicodeDecodeError as error:
        return "", f"is not UTF-8 text (byte {error.start})"
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"

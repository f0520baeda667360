"""JSON as strangers write it: UTF-8 alone, real text, bounded in bytes, values, depth and digits.

Python's reader also takes UTF-16 and halves of surrogate pairs, which no other reader of these
formats does and which cannot be written into a header, a digest or a message again.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from merge_ops.checkpoints.files.file_bounds import CONFIG, Bound
from merge_ops.errors import CheckpointError

MAX_DEPTH = 100
MAX_DIGITS = 300
"""Digits of a whole number: more than a float can hold. `model_max_length` often has 31."""
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def load_json(data: bytes, one_value_each: bool = False, bound: Bound = CONFIG) -> Any:
    """Return the value of a JSON text.

    Raises ValueError and nothing else: where the text is no strict JSON or is beyond its bound;
    with `one_value_each` also where it gives a key two values, of which one reader takes the first
    and another the last. Its depth may be near Python's limit: see `load_shallow_json`.
    """
    _check_bound(data, bound)
    text = data.decode("utf-8")
    try:
        value = json.loads(text, object_pairs_hook=_one_value_each if one_value_each else None)
    except RecursionError:
        raise _TooDeep from None
    if _MAY_BE_HALF.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def load_shallow_json(data: bytes, one_value_each: bool = False, bound: Bound = CONFIG) -> Any:
    """Return the value of a JSON text that is nested at most `MAX_DEPTH` deep.

    Raises ValueError and nothing else, for what `load_json` refuses and for more depth.
    """
    value = load_json(data, one_value_each, bound)
    if _is_deeper(value, MAX_DEPTH):
        raise _TooDeep
    return value


class _TooDeep(ValueError):
    def __init__(self) -> None:
        super().__init__(f"nested more than {MAX_DEPTH} deep")


def _check_bound(data: bytes, bound: Bound) -> None:
    """Raise ValueError for a text whose value would take memory out of proportion."""
    if len(data) > bound.nbytes:
        raise ValueError(f"it has {len(data)} bytes, and at most {bound.nbytes} are read")
    values = sum(map(data.count, (b",", b"[", b"{")))
    if values > bound.values:
        raise ValueError(f"it holds more than {bound.values} values")
    if b"0" * (MAX_DIGITS + 1) in data.translate(_DIGITS):
        _refuse_long_numbers(data)


def _refuse_long_numbers(data: bytes) -> None:
    """Raise ValueError for a whole number of many digits; texts and fractions may have them."""

    def number(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"it holds a whole number of {len(digits)} digits")
        return int(digits)

    try:
        json.loads(data.decode("utf-8"), parse_int=number)
    except RecursionError:
        raise _TooDeep from None


def _one_value_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs. A key that is given twice must have one value."""
    table = dict(pairs)
    if len(table) < len(pairs):
        for key, value in pairs:
            if value != table[key]:
                raise ValueError(f"the key {key!r} is given twice, with different values")
    return table


def parse_json_object(where: str, data: bytes, bound: Bound = CONFIG) -> dict[str, Any]:
    """Return the JSON object in a side file that messages call `where`.

    Raises CheckpointError where there is none, or where it is nested too deep or beyond its bound.
    """
    try:
        value = load_shallow_json(data, one_value_each=True, bound=bound)
    except _TooDeep as error:
        raise CheckpointError(
            f"{where}: {error}, as no model's file is; restore it from its source"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{where}: not valid JSON ({error}); restore the file from its source"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{where}: a JSON object was expected; restore the file from its source"
        )
    return cast(dict[str, Any], value)


def _containers(value: Any) -> list[Any]:
    """The objects and arrays directly in a value."""
    if not isinstance(value, dict | list):
        return []
    container = cast("dict[str, Any] | list[Any]", value)
    items = container.values() if isinstance(container, dict) else container
    # A vocabulary has 150,000 numbers and nothing else, which this tells in a fifth of the time:
    if {dict, list}.isdisjoint(set(map(type, items))):
        return []
    return [each for each in items if isinstance(each, dict | list)]


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether containers lie in one another more than `depth` deep. Uses no recursion."""
    level: list[Any] = [value]
    for _ in range(depth + 1):
        level = [item for each in level for item in _containers(each)]
        if not level:
            return False
    return True

"""JSON as strangers write it: UTF-8 alone, real text, of a bounded depth.

Python's reader also takes UTF-16 and halves of surrogate pairs, which no other reader of these
formats does and which cannot be written into a header, a digest or a message again.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from merge_ops.errors import CheckpointError

MAX_DEPTH = 100
_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def load_json(data: bytes, one_value_each: bool = False) -> Any:
    """Return the value of a JSON text.

    Raises ValueError or RecursionError where the text is no strict JSON; with `one_value_each` also
    where it gives a key two values, of which one reader takes the first and another the last.
    """
    text = data.decode("utf-8")
    value = json.loads(text, object_pairs_hook=_one_value_each if one_value_each else None)
    if _MAY_BE_HALF.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _one_value_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs. A key that is given twice must have one value."""
    table = dict(pairs)
    if len(table) < len(pairs):
        for key, value in pairs:
            if value != table[key]:
                raise ValueError(f"the key {key!r} is given twice, with different values")
    return table


def parse_json_object(where: str, data: bytes) -> dict[str, Any]:
    """Return the JSON object in a side file that messages call `where`.

    Raises CheckpointError where there is none, or where it is nested too deep.
    """
    try:
        value = load_json(data, one_value_each=True)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{where}: not valid JSON ({error}); restore the file from its source"
        ) from error
    if _is_deeper(value, MAX_DEPTH):
        raise CheckpointError(
            f"{where}: nested more than {MAX_DEPTH} deep, as no model's file is; restore it from"
            " its source"
        )
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

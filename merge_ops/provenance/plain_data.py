"""Findings as plain data, which JSON can hold."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast


def to_plain(value: Any) -> Any:
    """Return the same data as dictionaries and lists, with None for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_plain(each) for key, each in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in cast("Sequence[Any]", value)]
    return value

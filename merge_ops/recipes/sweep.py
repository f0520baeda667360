"""The points of a sweep: every combination of its values, each with an id."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

Parameters = Mapping[str, Any]

LONGEST_ID = 160
"""Bytes. Ids are names of folders, which local file systems end at 255, and some get a suffix."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient is one point of a sweep: its id, `density=0.3_lambda=1.0`, and its values."""

    id: str
    values: Parameters


def sweep_points(sweep: Mapping[str, tuple[Any, ...]], plain: bool) -> tuple[Coefficient, ...]:
    """Return the points of a sweep in order; one called `default` where there is none.

    An id of over `LONGEST_ID` bytes, of long gradients say, is cut off and ends in a digest of all
    of it.

    With `plain` values are written as they are: whole numbers stay whole in ids.
    """
    if not sweep:
        return (Coefficient("default", {}),)
    names = sorted(sweep)
    points: list[Coefficient] = []
    for values in itertools.product(*(sweep[name] for name in names)):
        pairs = dict(zip(names, values, strict=True))
        said = str if plain else _value_text
        text = "_".join(f"{name}={said(value)}" for name, value in pairs.items())
        points.append(Coefficient(_cut_off(text), pairs))
    return tuple(points)


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return ":".join(_value_text(item) for item in cast(list[Any], value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(float(value)) if isinstance(value, int) else str(value).strip()


def _cut_off(text: str) -> str:
    whole = text.encode()
    if len(whole) <= LONGEST_ID:
        return text
    mark = f"~{hashlib.sha256(whole).hexdigest()[:12]}"
    return whole[: LONGEST_ID - len(mark)].decode(errors="ignore") + mark

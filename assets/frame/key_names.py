"""Names in any script as Dagster's keys, whose operations and groups take ASCII alone.

An asset's key may hold any character. What Dagster makes of it (the names of the operation, of its
inputs, of the group) may not. So an asset is built under a plain key, and is given its own after.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import dagster as dg
from blake3 import blake3

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
Definition = TypeVar("Definition", bound=dg.AssetsDefinition)


def plain_part(name: str) -> str:
    """Return a name in ASCII: as it is where it is so, else what of it is, and a digest of it."""
    if _PLAIN.fullmatch(name):
        return name
    digest = blake3(name.encode(errors="surrogatepass")).hexdigest()[:12]
    kept = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40]
    return f"{kept or 'name'}_{digest}"


def plain_key(key: dg.AssetKey) -> dg.AssetKey:
    """Return the key that an asset is built under."""
    return dg.AssetKey([plain_part(part) for part in key.path])


def with_own_keys(definition: Definition, keys: Iterable[dg.AssetKey]) -> Definition:
    """Give a definition, built under plain keys, the keys that are meant, its deps' too."""
    meant = {plain: key for key in keys if (plain := plain_key(key)) != key}
    made: Any = definition
    return made.with_attributes(asset_key_replacements=meant) if meant else definition

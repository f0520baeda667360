"""Names that point to artifacts, each in one small document that keeps its whole history.

A ref is changed by reading it, appending, and writing it back only if nobody else did meanwhile:
the order of the history is the order of those writes, whatever the clocks of the writers say.
"""

import json
import random
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from resources.errors import AttemptError, DamagedArtifactError, StoreFailureError
from resources.places import Place
from resources.store.names import ref_folder, ref_key, refuse_secrets

_FORMAT = 1
_TRIES = 60
READERS = 16  # of an asset's refs at once: what hides the way to a far server
_OWN = ("id", "kind", "digest", "at", "run")


@dataclass(frozen=True)
class RefEntry:
    """One change of a ref: what it pointed to from then on, when, from which run, and why."""

    kind: str
    digest: str
    at: str
    run: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ref:
    """A name: the asset and partition it stands for, and its changes, oldest first."""

    asset: str
    partition: str | None
    history: tuple[RefEntry, ...]

    @property
    def current(self) -> RefEntry:
        """Return what it points to now."""
        return self.history[-1]

    @property
    def kind(self) -> str:
        """Return the kind of the artifact it points to now."""
        return self.current.kind

    @property
    def digest(self) -> str:
        """Return the digest of the artifact it points to now."""
        return self.current.digest

    @property
    def fields(self) -> Mapping[str, Any]:
        """Return what was said when it was last pointed."""
        return self.current.fields


def write_ref(place: Place, asset: str, partition: str | None, entry: RefEntry) -> None:
    """Append `entry` to a ref, unless it points there already with the same fields.

    SecretFoundError is raised where a field looks like a secret, StoreFailureError where other
    writers changed the ref again and again meanwhile.
    """
    key = ref_key(asset, partition)
    change = uuid.uuid4().hex
    line = {**_line(entry, asset), "id": change}
    for tried in range(_TRIES):
        stored = place.read(key)
        document = _parse(stored[0], f"{place.uri}/{key}") if stored else None
        if document and _settled(document["history"], line):
            return
        document = document or {"format": _FORMAT, "asset": asset, "partition": partition}
        document["history"] = [*document.get("history", []), line]
        text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
        refuse_secrets(json.dumps(line), place.secrets(), f"the ref {asset} {partition or ''}")
        data = text.encode()
        if place.replace(key, data, stored[1]) if stored else place.create(key, data):
            return
        time.sleep(random.uniform(0, min(0.5, 0.005 * 2 ** min(tried, 7))))
    raise StoreFailureError(
        f"ref {asset} {partition or ''} in {place.uri} was changed by others {_TRIES} times while "
        f"it was being changed here; run again, and see who points it so often"
    )


def read_ref(place: Place, asset: str, partition: str | None) -> Ref | None:
    """Return one ref, or None; DamagedArtifactError when it cannot be understood."""
    return _load(place, ref_key(asset, partition))


def read_refs(place: Place, asset: str) -> dict[str | None, Ref]:
    """Return all refs of an asset by partition: one listing, then one small read each, at once."""
    keys = [entry.key for entry in place.children(ref_folder(asset)) if entry.key.endswith(".json")]
    with ThreadPoolExecutor(READERS, "refs") as pool:
        refs = pool.map(lambda key: _load(place, key), keys)
        return {ref.partition: ref for ref in refs if ref is not None}


def _load(place: Place, key: str) -> Ref | None:
    stored = place.read(key)
    if stored is None:
        return None
    document = _parse(stored[0], f"{place.uri}/{key}")
    return Ref(
        document["asset"],
        document["partition"],
        tuple(
            RefEntry(
                line["kind"],
                line["digest"],
                line["at"],
                line.get("run"),
                {name: value for name, value in line.items() if name not in _OWN},
            )
            for line in document["history"]
        ),
    )


def _settled(history: list[dict[str, Any]], line: dict[str, Any]) -> bool:
    """Tell whether nothing is left to do: our change is in, or the last one says the same."""
    if any(old["id"] == line["id"] for old in history):
        return True  # an answer got lost, and the write was tried again underneath

    def said(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entry.items() if name not in ("id", "at", "run")}

    return said(history[-1]) == said(json.loads(json.dumps(line)))


def _line(entry: RefEntry, asset: str) -> dict[str, Any]:
    taken = sorted(set(entry.fields) & set(_OWN))
    if taken:
        raise AttemptError(f"ref {asset} sets {', '.join(taken)} itself; choose other field names")
    line = {
        "kind": entry.kind,
        "digest": entry.digest,
        "at": entry.at,
        **({"run": entry.run} if entry.run else {}),
        **entry.fields,
    }
    try:
        json.dumps(line, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise AttemptError(f"ref {asset} can hold only JSON values: {error}") from error
    return line


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedArtifactError(f"{where}: the ref is no JSON") from error
    history = document.get("history") if isinstance(document, dict) else None
    proper = (
        isinstance(history, list)
        and bool(history)
        and document.get("format") == _FORMAT
        and isinstance(document.get("asset"), str)
        and isinstance(document.get("partition", False), str | None)
        and all(
            isinstance(line, dict)
            and all(isinstance(line.get(name), str) for name in ("id", "kind", "digest", "at"))
            for line in history
        )
    )
    if not proper:
        raise DamagedArtifactError(
            f"{where}: the ref is not of format {_FORMAT}; a later release may have written it"
        )
    return document

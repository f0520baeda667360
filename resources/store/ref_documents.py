"""What a ref's document says: the changes of one name, oldest first, each with its own check.

    {"format": 1, "catalog": …, "asset": …, "partition": …,
     "history": [{"kind": …, "digest": …, "at": …, "by": …, …, "id": …, "check": …}, …]}

`check` is the BLAKE3 of the partition and of all else that the change says. It finds what a disk or
a hand has changed, also where the result is a proper document that names another artifact; who
wants to forge one can (a store's signatures are for that). The asset is not in it, since assets get
other names. Changes of earlier releases have none, and an earlier release that appends to a
document keeps those that are there.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from resources.errors import (
    AttemptError,
    DamagedArtifactError,
    LaterReleaseError,
    StoreAddressError,
)
from resources.store.names import WAY_OUT, manifest_key

_FORMAT = 1
VACANT = "vacant"
"""A field of a change after which a name points to nothing."""
CHECK = "check"
_OWN = ("id", "kind", "digest", "at", "run", "by", CHECK)


@dataclass(frozen=True)
class RefEntry:
    """One change of a ref: what it pointed to from then on, when, from which run, and why.

    `by` is who did it, as user@host; None where an earlier release wrote it.
    """

    kind: str
    digest: str
    at: str
    run: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    by: str | None = None

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "RefEntry":
        """Return the change that a line of a parsed document tells."""
        fields = {name: value for name, value in line.items() if name not in _OWN}
        return cls(
            line["kind"], line["digest"], line["at"], line.get("run"), fields, line.get("by")
        )


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

    @property
    def vacant(self) -> bool:
        """Return whether it points to nothing any more: its last change took back the one before.

        `kind` and `digest` are then those of what was taken back.
        """
        return self.current.fields.get(VACANT) is True


def written(document: Mapping[str, Any]) -> bytes:
    """Return a ref's document as it is stored."""
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode()


def begun(catalog: str | None, asset: str, partition: str | None) -> dict[str, Any]:
    """Return a document without a history yet."""
    named = {} if catalog is None else {"catalog": catalog}
    return {"format": _FORMAT, **named, "asset": asset, "partition": partition}


def is_settled(history: list[dict[str, Any]], line: dict[str, Any]) -> bool:
    """Tell whether nothing is left to do: our change is in, or the last one says the same."""
    if any(old["id"] == line["id"] for old in history):
        return True  # an answer got lost, and the write was tried again underneath

    unsaid = ("id", CHECK, *_OF_CHANGE)

    def said(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entry.items() if name not in unsaid}

    return said(history[-1]) == said(line)


def is_same(line: Mapping[str, Any], entry: RefEntry) -> bool:
    """Tell whether a line of a document is this change."""
    return (line["kind"], line["digest"], line["at"]) == (entry.kind, entry.digest, entry.at)


_OF_CHANGE = ("at", "run", "by")
"""When, in which run and by whom: a change that says nothing else is none."""


def line_of(entry: RefEntry, asset: str, partition: str | None) -> dict[str, Any]:
    """Return a new line for a change, with an id and a check of its own.

    AttemptError is raised where its fields are no JSON, or called as what a line says itself.
    """
    taken = sorted(set(entry.fields) & set(_OWN))
    if taken:
        raise AttemptError(f"ref {asset} sets {', '.join(taken)} itself; choose other field names")
    line = {
        "kind": entry.kind,
        "digest": entry.digest,
        "at": entry.at,
        **({"by": entry.by} if entry.by else {}),
        **({"run": entry.run} if entry.run else {}),
        **entry.fields,
    }
    try:
        line = json.loads(json.dumps({**line, "id": uuid.uuid4().hex}, allow_nan=False))
        json.dumps(line, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise AttemptError(f"ref {asset} can hold only JSON values: {error}") from error
    return {**line, CHECK: check_of(partition, line)}


def check_of(partition: str | None, line: Mapping[str, Any]) -> str:
    """Return the BLAKE3, in 16 hexadecimal digits, of a partition and what a line says of it."""
    said = {name: value for name, value in line.items() if name != CHECK}
    return blake3(json.dumps([partition, said], sort_keys=True).encode()).hexdigest(8)


def parse_ref(data: bytes, where: str) -> dict[str, Any]:
    """Parse and check a ref's document.

    DamagedArtifactError is raised where it is none, LaterReleaseError where its format is later.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedArtifactError(f"{where}: the ref is no JSON. {WAY_OUT}") from error
    number = document.get("format") if isinstance(document, dict) else None
    if type(number) is int and number > _FORMAT:
        raise LaterReleaseError(
            f"{where}: the ref is not of format {_FORMAT} but of {number}, which a later release"
            " writes; use that release"
        )
    history = document.get("history") if isinstance(document, dict) else None
    proper = (
        isinstance(history, list)
        and bool(history)
        and number == _FORMAT
        and isinstance(document.get("asset"), str)
        and isinstance(document.get("partition", False), str | None)
        and isinstance(document.get("catalog"), str | None)
        and all(_is_entry(line) for line in history)
    )
    if not proper:
        raise DamagedArtifactError(
            f"{where}: the ref is not of format {_FORMAT}, or names no artifact. {WAY_OUT}"
        )
    partition = document.get("partition")
    for line in document["history"]:
        if line.get(CHECK) not in (None, check_of(partition, line)):
            raise DamagedArtifactError(
                f"{where}: its entry of {line['at']} is not as it was written; a hand or a disk"
                f" changed it. {WAY_OUT}"
            )
    return document


def _is_entry(line: Any) -> bool:
    needed = ("id", "kind", "digest", "at")
    if not (isinstance(line, dict) and all(isinstance(line.get(name), str) for name in needed)):
        return False
    if not all(isinstance(line.get(name), str | None) for name in ("run", "by")):
        return False
    try:
        manifest_key(line["kind"], line["digest"])
    except StoreAddressError:
        return False
    return True

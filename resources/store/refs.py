"""Names that point to artifacts, each in one small document that keeps its whole history.

A ref belongs to one catalog; None stands for the time before catalogs had names. A ref is changed
by reading it, appending, and writing it back only if nobody else did meanwhile: the order of the
history is the order of those writes, whatever the clocks of the writers say.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from resources.errors import (
    AttemptError,
    DamagedArtifactError,
    LaterReleaseError,
    StoreAddressError,
    StoreFailureError,
)
from resources.places import Place
from resources.store.names import (
    WAY_OUT,
    manifest_key,
    partition_of,
    ref_folder,
    ref_key,
    refuse_secrets,
)

Key = TypeVar("Key")
Found = TypeVar("Found")

_FORMAT = 1
_TRIES = 60
STRETCH = 64  # the most refs that one thread reads one after the other
VACANT = "vacant"
"""A field of a change after which a name points to nothing."""
_OWN = ("id", "kind", "digest", "at", "run", "by")


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


@dataclass(frozen=True)
class RefTable:
    """The refs of one asset by partition, and what is wrong with those that cannot be read.

    `damaged` goes by the partition as the file's name tells it.
    """

    refs: dict[str | None, Ref]
    damaged: dict[str, DamagedArtifactError]


def write_ref(
    place: Place,
    catalog: str | None,
    asset: str,
    partition: str | None,
    entry: RefEntry,
    after: RefEntry | None = None,
) -> bool | None:
    """Append `entry` to a ref, unless it points there already with the same fields.

    Return whether the ref is new; None, and append nothing, where its last entry is not the one
    that this shall stand `after`: somebody else has changed it.
    SecretFoundError is raised where a field looks like a secret, StoreFailureError where other
    writers changed the ref again and again meanwhile, DamagedArtifactError where what is there
    cannot be understood.
    """
    key = ref_key(catalog, asset, partition)
    change = uuid.uuid4().hex
    line = {**_line(entry, asset), "id": change}
    for tried in range(_TRIES):
        stored = place.read(key)
        document = parse_ref(stored[0], f"{place.uri}/{key}") if stored else None
        if document and document.get("catalog") not in (None, catalog):
            raise DamagedArtifactError(f"{place.uri}/{key}: it is another catalog's ref. {WAY_OUT}")
        if document and document.get("catalog") != catalog:
            raise StoreAddressError(
                f"{place.uri}/{key} is a ref of the time before catalogs had names, where a ref of"
                f" catalog {catalog!r} would be; give the catalog another name (`name:` in"
                " models.yaml)"
            )
        before = document["history"] if document else []
        if document and _settled(before, line):
            return False
        if after is not None and before and not _is_same(before[-1], after):
            return None
        document = document or _begun(catalog, asset, partition)
        document["history"] = [*document.get("history", []), line]
        refuse_secrets(json.dumps(line), place.secrets(), f"the ref {asset} {partition or ''}")
        data = written(document)
        if place.replace(key, data, stored[1]) if stored else place.create(key, data):
            return stored is None
        time.sleep(random.uniform(0, min(0.5, 0.005 * 2 ** min(tried, 7))))
    raise StoreFailureError(
        f"ref {asset} {partition or ''} in {place.uri} was changed by others {_TRIES} times while "
        f"it was being changed here; run again, and see who points it so often"
    )


def written(document: Mapping[str, Any]) -> bytes:
    """Return a ref's document as it is stored."""
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode()


def read_ref(place: Place, catalog: str | None, asset: str, partition: str | None) -> Ref | None:
    """Return one ref, or None; DamagedArtifactError when it cannot be understood."""
    return load_ref(place, ref_key(catalog, asset, partition), catalog)


def read_refs(place: Place, catalog: str | None, asset: str) -> RefTable:
    """Read all refs of an asset: one listing, then one small read each, at once."""
    folder = ref_folder(catalog, asset)
    keys = [entry.key for entry in place.children(folder) if entry.key.endswith(".json")]
    refs: dict[str | None, Ref] = {}
    damaged: dict[str, DamagedArtifactError] = {}

    def read(key: str) -> Ref | DamagedArtifactError | None:
        try:
            return load_ref(place, key, catalog)
        except DamagedArtifactError as error:
            return error

    for key, ref in zip(keys, read_at_once(place, read, keys), strict=True):
        if isinstance(ref, DamagedArtifactError):
            damaged[partition_of(key)] = ref
        elif ref is not None:
            refs[ref.partition] = ref
    return RefTable(refs, damaged)


def read_at_once(place: Place, read: Callable[[Key], Found], keys: Sequence[Key]) -> list[Found]:
    """Return what `read` gives for each key, in order, by as many threads as help at a place.

    Handing one small read to a thread costs as much as the read, so many are handed over in
    stretches; few are still read at once, each by a thread of its own.
    """
    if len(keys) < 2:
        return [read(key) for key in keys]
    length = max(1, min(STRETCH, len(keys) // (4 * place.readers)))
    stretches = [keys[start : start + length] for start in range(0, len(keys), length)]

    def read_stretch(stretch: Sequence[Key]) -> list[Found]:
        return [read(key) for key in stretch]

    with ThreadPoolExecutor(place.readers, "refs") as pool:
        return [*chain.from_iterable(pool.map(read_stretch, stretches))]


def load_ref(place: Place, key: str, catalog: str | None) -> Ref | None:
    """Read the ref at a key; None where there is none of this catalog."""
    stored = place.read(key)
    if stored is None:
        return None
    where = f"{place.uri}/{key}"
    document = parse_ref(stored[0], where)
    owner = document.get("catalog")
    if owner != catalog and None in (owner, catalog):
        return None  # of the time before catalogs had names, or of a catalog called as an asset was
    if owner != catalog or not _is_at_home(document, key, catalog):
        raise DamagedArtifactError(
            f"{where}: the ref is that of another name; something else than this store put it here."
            f" {WAY_OUT}"
        )
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
                line.get("by"),
            )
            for line in document["history"]
        ),
    )


def _begun(catalog: str | None, asset: str, partition: str | None) -> dict[str, Any]:
    named = {} if catalog is None else {"catalog": catalog}
    return {"format": _FORMAT, **named, "asset": asset, "partition": partition}


def _is_at_home(document: Mapping[str, Any], key: str, catalog: str | None) -> bool:
    try:
        return ref_key(catalog, document["asset"], document.get("partition")) == key
    except (StoreAddressError, UnicodeEncodeError):
        return False


def _settled(history: list[dict[str, Any]], line: dict[str, Any]) -> bool:
    """Tell whether nothing is left to do: our change is in, or the last one says the same."""
    if any(old["id"] == line["id"] for old in history):
        return True  # an answer got lost, and the write was tried again underneath

    def said(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entry.items() if name not in ("id", *_OF_CHANGE)}

    return said(history[-1]) == said(json.loads(json.dumps(line)))


def _is_same(line: Mapping[str, Any], entry: RefEntry) -> bool:
    return (line["kind"], line["digest"], line["at"]) == (entry.kind, entry.digest, entry.at)


_OF_CHANGE = ("at", "run", "by")
"""When, in which run and by whom: a change that says nothing else is none."""


def _line(entry: RefEntry, asset: str) -> dict[str, Any]:
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
        json.dumps(line, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise AttemptError(f"ref {asset} can hold only JSON values: {error}") from error
    return line


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

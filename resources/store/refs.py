"""Names that point to artifacts, each in one small document that keeps its whole history.

A ref belongs to one catalog; None stands for the time before catalogs had names. A ref is changed
by reading it, appending, and writing it back only if nobody else did meanwhile: the order of the
history is the order of those writes, whatever the clocks of the writers say.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from resources.errors import DamagedArtifactError, StoreAddressError, StoreFailureError
from resources.places import Place
from resources.store.names import WAY_OUT, partition_of, ref_folder, ref_key, refuse_secrets
from resources.store.ref_documents import (
    Ref,
    RefEntry,
    begun,
    is_same,
    is_settled,
    line_of,
    parse_ref,
    written,
)

Key = TypeVar("Key")
Found = TypeVar("Found")

_TRIES = 60
STRETCH = 64  # the most refs that one thread reads one after the other


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
    line = line_of(entry, asset, partition)
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
        if document and is_settled(before, line):
            return False
        if after is not None and before and not is_same(before[-1], after):
            return None
        document = document or begun(catalog, asset, partition)
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
        tuple(map(RefEntry.of_line, document["history"])),
    )


def _is_at_home(document: Mapping[str, Any], key: str, catalog: str | None) -> bool:
    try:
        return ref_key(catalog, document["asset"], document.get("partition")) == key
    except (StoreAddressError, UnicodeEncodeError):
        return False

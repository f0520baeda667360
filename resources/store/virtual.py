"""Virtual artifacts: planned, and found by the digest that they will have; nothing is written.

The manifest of one says `virtual: true` and how its files are made, and lists none. It is published
as any other is, by one conditional write. Whoever writes the files publishes them under the same
digest (attempt.py): the manifest is then replaced, once. The other way leads `unwrite` alone, which
a person asks for.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from resources.errors import StoreFailureError
from resources.places import Place
from resources.reading.records import content_digest
from resources.store.artifact import Artifact, is_virtual, manifest_bytes, parse_manifest
from resources.store.names import ATTEMPTS, manifest_key

Find = Callable[[str, str], Artifact | None]


def publish_virtual(
    place: Place, find: Find, kind: str, digest: str, fields: Mapping[str, Any]
) -> Artifact:
    """Make a virtual artifact exist, and return it, or what is there under its digest already.

    `fields` say how it is made: JSON values, no secrets. AttemptError is raised for others,
    StoreFailureError where the manifest can neither be created nor found.
    """
    key = manifest_key(kind, digest)
    data = _document(place, kind, digest, fields)
    place.create(key, data)
    artifact = find(kind, digest)
    if artifact is None:
        raise StoreFailureError(
            f"artifact store {place.uri}: {key} is not there although it was created just now;"
            " check the storage underneath, and run again"
        )
    return artifact


def unwrite(place: Place, kind: str, digest: str, fields: Mapping[str, Any]) -> int:
    """Make a written artifact virtual again, and remove its files; return their bytes.

    First its manifest is replaced, by one conditional write; what a kill leaves then is garbage of
    an attempt that no manifest names. Nothing is done, and 0 returned, where it is virtual or not
    there. `fields` are as in `publish_virtual`. StoreFailureError is raised where somebody else
    changes the manifest at the same time.
    """
    key = manifest_key(kind, digest)
    stored = place.read(key)
    manifest = parse_manifest(stored[0], f"{place.uri}/{key}") if stored else None
    if stored is None or manifest is None or is_virtual(manifest):
        return 0
    data = _document(place, kind, digest, fields)
    if not place.replace(key, data, stored[1]):
        raise StoreFailureError(
            f"artifact store {place.uri}: {key} was changed by others just now; run again"
        )
    entries = list(place.walk(f"{ATTEMPTS}/{manifest['attempt']}"))
    place.delete([entry.key for entry in entries])
    return sum(entry.size for entry in entries)


def _document(place: Place, kind: str, digest: str, fields: Mapping[str, Any]) -> bytes:
    """The manifest of a virtual artifact. Raises AttemptError for fields that it cannot hold."""
    made = {
        "kind": kind,
        "digest": digest,
        "content_digest": content_digest([]),
        "attempt": uuid.uuid4().hex,
        "files": [],
        "virtual": True,
    }
    return manifest_bytes(place, made, fields)

"""Which store this is: an id that no other has, written before the first use of a store.

A Dagster instance remembers it, and so knows when its store was lost or exchanged.
"""

import json
import uuid

from resources.places import Place
from resources.store.names import IDENTITY
from resources.store.people import this_person


def ensure_identity(place: Place) -> None:
    """Give the store an id, unless it has one."""
    if place.read(IDENTITY) is None:
        note = {"format": 1, "id": uuid.uuid4().hex, "by": this_person()}
        place.create(IDENTITY, json.dumps(note, ensure_ascii=False).encode())


def identity_of(place: Place) -> str | None:
    """Return the store's id; None for one that was never used, or whose document is damaged."""
    stored = place.read(IDENTITY)
    try:
        document = json.loads(stored[0]) if stored else None
    except (ValueError, RecursionError):
        return None
    identity = document.get("id") if isinstance(document, dict) else None
    return identity if isinstance(identity, str) else None

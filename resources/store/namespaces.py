"""Whose refs are whose: every catalog has its own, below its name.

    catalogs/<catalog>.json      written before a catalog's first ref: its name, by whom, since when
    catalogs/@earlier.json       the one catalog that the refs without a name belong to

Until commit dc512c1 refs had no catalog. Such refs belong to one catalog alone, and no other ever
reads them. It is the first of which it is known that it made them: it points to the same model that
they point to, or goes on without pulling a model anew (`Namespace.enter`), or a refresh finds its
own runs in them, or `ronghe adopt-refs` says so. Where two catalogs had been mixed in such refs,
what the other one had is made again. Until somebody owns them, a catalog that has written nothing
yet reads them, and says so.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resources.errors import DamagedArtifactError, StoreAddressError
from resources.places import Entry, Place
from resources.store.identity import ensure_identity
from resources.store.names import CATALOGS, REFS, catalog_folder, catalog_key, partition_of
from resources.store.people import this_person
from resources.store.refs import read_ref

EARLIER = f"{CATALOGS}/@earlier.json"
_PULLED = "model"  # the asset that a catalog without a history begins with

log = logging.getLogger("ronghe.store")


@dataclass
class Namespace:
    """The refs of one catalog in one place, as one process sees them.

    `catalog` None stands for the store's only catalog, and for refs without one while it has none.
    """

    place: Place
    catalog: str | None
    _entered: bool = False
    _earlier: bool | None = None  # whether refs without a name are this catalog's; None: not known
    _told: bool = False

    @property
    def name(self) -> str | None:
        """The catalog's name; StoreAddressError where none was given and the store has several."""
        if self.catalog is None and not self._entered:
            known = catalogs(self.place)
            if len(known) > 1:
                raise StoreAddressError(
                    f"artifact store {self.place.uri} holds refs of {len(known)} catalogs"
                    f" ({', '.join(known)}); say whose are meant"
                )
            self.catalog = known[0] if known else None
            self._entered = self.catalog is not None
        return self.catalog

    @property
    def reads_earlier(self) -> bool:
        """Whether refs without a name are read where this catalog has none."""
        name = self.name
        if name is None:
            return False
        if self._earlier is None:
            owner = earlier_owner(self.place)
            if owner is None and self.place.read(catalog_key(name)) is None:
                return True  # nobody's: read by whoever has written nothing yet
            self._earlier = owner == name and "moved" not in _note(self.place, EARLIER)
        return self._earlier

    def tell_earlier(self) -> None:
        """Say, once, that refs without a name are read though nobody owns them."""
        if not self._told and earlier_owner(self.place) is None:
            log.warning(
                "note: artifact store %s holds refs of the time before catalogs had names; catalog"
                " '%s' reads them. `ronghe adopt-refs` makes them its own",
                self.place.uri, self.name,
            )  # fmt: skip
        self._told = True

    def enter(self, asset: str, partition: str | None, digest: str, now: Callable[[], str]) -> None:
        """Prepare for the first ref that this process writes: make the catalog known.

        Refs without a name become this catalog's where it is known that it made them; see above.
        """
        if self._entered:
            return
        name = self.name
        if name is not None and self.place.read(catalog_key(name)) is None:
            if earlier_owner(self.place) is None and has_earlier(self.place):
                before = _quietly(self.place, asset, partition)
                if asset != _PULLED or before == digest:
                    self.own_earlier(now())
                else:
                    log.warning(
                        "note: artifact store %s holds refs of the time before catalogs had names,"
                        " of other models than catalog '%s' has; they are left alone. If they are"
                        " this catalog's, run `ronghe adopt-refs`", self.place.uri, name,
                    )  # fmt: skip
            self.make_known(now)
        self._entered = True
        self._earlier = None

    def make_known(self, now: Callable[[], str]) -> None:
        """Write the catalog's document, unless it is there; the store may be lost at any time."""
        name = self.name
        if name is not None and self.place.read(catalog_key(name)) is None:
            ensure_identity(self.place)
            note = {"format": 1, "catalog": name, "since": now(), "by": this_person()}
            self.place.create(catalog_key(name), json.dumps(note, ensure_ascii=False).encode())

    def own_earlier(self, now: str) -> bool:
        """Make the refs without a name this catalog's, and say so; False where they are another's.

        StoreAddressError is raised where the catalog has no name.
        """
        name = self.name
        if name is None:
            raise StoreAddressError(f"artifact store {self.place.uri}: name the catalog")
        note = {"format": 1, "catalog": name, "at": now, "by": this_person()}
        if self.place.create(EARLIER, json.dumps(note, ensure_ascii=False).encode()):
            log.warning(
                "note: refs of the time before catalogs had names, in artifact store %s, are those"
                " of catalog '%s' from now on; no other catalog reads them. `ronghe adopt-refs`"
                " moves them", self.place.uri, name,
            )  # fmt: skip
        self._earlier = earlier_owner(self.place) == name
        return self._earlier


def catalogs(place: Place) -> list[str]:
    """Return the names of the catalogs that have refs in a place, sorted. One listing.

    A catalog whose document is damaged goes by the name of that document's file.
    """
    keys = [entry.key for entry in place.children(CATALOGS) if entry.key.endswith(".json")]
    found = [(_note(place, key).get("catalog"), key) for key in keys if key != EARLIER]
    return sorted(
        name if isinstance(name, str) and name else partition_of(key) for name, key in found
    )


def earlier_owner(place: Place) -> str | None:
    """Return the catalog that refs without a name belong to; None where nobody owns them.

    Where the document that says so is damaged, it is no catalog that anybody has: "".
    """
    if place.read(EARLIER) is None:
        return None
    owner = _note(place, EARLIER).get("catalog")
    return owner if isinstance(owner, str) else ""


def earlier_refs(place: Place) -> list[Entry]:
    """Return every ref's document without a catalog. One listing.

    Below the name of a catalog may also lie earlier refs, of a recipe that is called the same;
    whoever reads them tells them apart.
    """
    entries = [entry for entry in place.walk(REFS) if entry.key.endswith(".json")]
    taken = tuple(f"{catalog_folder(name)}/" for name in catalogs(place))
    return [entry for entry in entries if not entry.key.startswith(taken)]


def has_earlier(place: Place) -> bool:
    """Tell whether there is any ref without a catalog."""
    return bool(earlier_refs(place))


def _quietly(place: Place, asset: str, partition: str | None) -> str | None:
    try:
        ref = read_ref(place, None, asset, partition)
    except DamagedArtifactError:
        return None
    return ref.digest if ref is not None else None


def _note(place: Place, key: str) -> dict[str, Any]:
    """A small document; an empty one where there is none, or none that can be read."""
    stored = place.read(key)
    try:
        document = json.loads(stored[0]) if stored else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}

"""Looking after a store: who it is, whose refs it holds, what is wrong in it, what is set aside.

    store.json         written before a store's first use: an id that no other store has
    aside/<id>/<key>   a part as it was, moved out of the way; nothing here is ever deleted

Nothing in here decides what is bad: it finds, and moves what it is told to.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from resources.errors import DamagedArtifactError, LaterReleaseError, StoreAddressError
from resources.places import Entry, Place
from resources.places.place import LARGEST
from resources.store.adoption import Adoption, adopt_refs, close_earlier
from resources.store.artifact import parse_manifest
from resources.store.clock import StoreClock
from resources.store.identity import identity_of
from resources.store.names import (
    ARTIFACTS,
    ASIDE,
    ATTEMPTS,
    CATALOGS,
    IDENTITY,
    MANIFEST,
    REFS,
    catalog_folder,
    catalog_key,
    parsed_note,
    ref_key,
)
from resources.store.namespaces import EARLIER, Namespace, catalogs, earlier_owner, earlier_refs
from resources.store.people import this_person
from resources.store.ref_documents import Ref
from resources.store.refs import load_ref, read_at_once
from resources.store.virtual import unwrite


@dataclass(frozen=True)
class StoredRef:
    """A ref where it lies: the catalog that it belongs to (None: none), and its key.

    Of one that cannot be read, `fault` is why; `is_later` tells that a later release wrote it.
    """

    catalog: str | None
    key: str
    ref: Ref | None
    fault: str | None = None
    is_later: bool = False


class Upkeep:
    """What `ronghe verify`, `doctor`, `adopt-refs` and a refresh need of a store beside its use."""

    def __init__(self, place: Place, namespace: Namespace, clock: StoreClock) -> None:
        self._place = place
        self._namespace = namespace
        self._clock = clock

    @property
    def identity(self) -> str | None:
        """The store's id; None for a store that was never used, or whose document is damaged."""
        return identity_of(self._place)

    def absence(self) -> str | None:
        """Return why there is no store: its root can be none, or nothing was ever kept there.

        None where there is one. A store of the time before stores had an id is listed.
        """
        if (fault := self._place.fault()) is not None:
            return fault
        is_used = self._place.read(IDENTITY) is not None or any(
            self._place.walk(folder) for folder in (CATALOGS, ARTIFACTS, REFS, ATTEMPTS)
        )
        return None if is_used else "nothing was ever kept there"

    def require(self, may_be_new: bool = False) -> None:
        """Raise StoreAddressError where there is no store, or, if it `may_be_new`, can be none."""
        fault = self._place.fault() if may_be_new else self.absence()
        if fault is not None:
            raise StoreAddressError(
                f"artifact store {self._place.uri}: {fault}. `ronghe refresh` fills a new one; if"
                " another is meant, set RONGHE_STORE to it, and see that its disk is mounted"
            )

    def catalogs(self) -> list[str]:
        """Return the names of the catalogs that have refs here, sorted."""
        return catalogs(self._place)

    def earlier(self) -> tuple[int, str | None]:
        """Return how many refs have no catalog, and the catalog they belong to (None: nobody's)."""
        return len(earlier_refs(self._place)), earlier_owner(self._place)

    def own_earlier(self) -> bool:
        """Make the refs without a catalog this catalog's; False where they are another's."""
        return self._namespace.own_earlier(self._clock.now_text())

    def adopt(
        self, source: str | None, present_name: Callable[[str], str], dry_run: bool = False
    ) -> Adoption:
        """Move the refs of `source` (None: those without a catalog) to this catalog (adoption)."""
        name = str(self._namespace.name)
        adopted = adopt_refs(self._place, name, source, present_name, dry_run)
        if not dry_run and not adopted.conflicts:
            now = self._clock.now_text()
            self._namespace.make_known(self._clock.now_text)
            if source is None and (adopted.moved or earlier_owner(self._place)):
                self._namespace.own_earlier(now)
                if not adopted.damaged:
                    close_earlier(self._place, now)
        return adopted

    def all_refs(self) -> list[StoredRef]:
        """Read every ref of every catalog: one listing, and small reads at once."""
        names = {catalog_folder(name): name for name in self.catalogs()}
        keys: list[tuple[str | None, str]] = []
        for entry in self._place.walk(catalog_folder(None)):
            if entry.key.endswith(".json"):
                keys.append((names.get("/".join(entry.key.split("/")[:2])), entry.key))
        return self.read_refs(keys)

    def ref_entries(self) -> list[Entry]:
        """List the documents of this catalog's refs, unread."""
        name = self._namespace.name
        entries = self._place.walk(catalog_folder(name)) if name is not None else []
        return [entry for entry in entries if entry.key.endswith(".json")]

    def earlier_keys(self) -> list[str]:
        """List the documents of refs without a catalog, unread, where this catalog reads them."""
        entries = earlier_refs(self._place) if self._namespace.reads_earlier else []
        return [entry.key for entry in entries]

    def read_refs(
        self, keys: Iterable[tuple[str | None, str]], earlier: Iterable[str] = ()
    ) -> list[StoredRef]:
        """Read refs by catalog and key, and those without a catalog, at once."""
        pairs = [*keys, *((None, key) for key in earlier)]
        return read_at_once(self._place, lambda pair: self.read_ref(*pair), pairs)

    def read_ref(self, catalog: str | None, key: str) -> StoredRef:
        """Read one ref where it lies; a fault is told, not raised."""
        try:
            ref = load_ref(self._place, key, catalog)
            if ref is None:  # of a recipe that was called as a catalog is, or of a catalog whose
                catalog = self._owner_of(key)  # document is gone
                ref = load_ref(self._place, key, catalog)
        except DamagedArtifactError as error:
            return StoredRef(catalog, key, None, str(error), isinstance(error, LaterReleaseError))
        fault = None if ref is not None else f"{self._place.uri}/{key}: the ref is another's"
        return StoredRef(catalog, key, ref, fault)

    def key_of(self, asset: str, partition: str | None) -> str:
        """Return where this catalog's ref of that name lies."""
        return ref_key(self._namespace.name, asset, partition)

    def _owner_of(self, key: str) -> str | None:
        """The catalog that a ref itself names."""
        stored = self._place.read(key)
        owner = parsed_note(stored[0]).get("catalog") if stored else None
        return owner if isinstance(owner, str) else None

    def manifests(self) -> list[tuple[str, str]]:
        """Return (kind, digest) of every manifest, whatever is in it. One listing."""
        keys = [entry.key.split("/") for entry in self._place.walk(ARTIFACTS)]
        return [(key[1], key[2]) for key in keys if len(key) == 4 and key[3] == MANIFEST]

    def read_manifests(self, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        """Read manifests by (kind, digest): each as it is, or the DamagedArtifactError of it."""

        def read(name: tuple[str, str]) -> Any:
            key = f"{ARTIFACTS}/{name[0]}/{name[1]}/{MANIFEST}"
            stored = self._place.read(key)
            try:
                return parse_manifest(stored[0], f"{self._place.uri}/{key}") if stored else None
            except DamagedArtifactError as error:
                return error

        listed = list(names)
        pairs = zip(listed, read_at_once(self._place, read, listed), strict=True)
        return {name: manifest for name, manifest in pairs if manifest is not None}

    def note_faults(self) -> list[tuple[str, str]]:
        """Return (key, problem) of each of the store's own notes that cannot be read."""
        entries = [*self._place.children(CATALOGS)]
        keys = [IDENTITY, *(entry.key for entry in entries if entry.key.endswith(".json"))]
        faults: list[tuple[str, str]] = []
        for key in keys:
            stored = self._place.read(key)
            field = "id" if key == IDENTITY else "catalog"
            if stored is not None and not isinstance(parsed_note(stored[0]).get(field), str):
                faults.append((key, f"{self._place.uri}/{key} cannot be read. {_NOTE_WAY_OUT}"))
        return faults

    def set_aside(self, keys: Iterable[str]) -> list[str]:
        """Move small objects (refs, manifests, notes) to `aside/`; return where they are now.

        Of an object that is not there any more, nothing is done.
        """
        moved: list[str] = []
        repair = f"{self._clock.now_text()[:19].replace(':', '')}-{uuid.uuid4().hex[:8]}"
        for key in keys:
            stored = self._place.read(key)
            if stored is None:
                continue
            there = f"{ASIDE}/{repair}/{key}"
            if len(stored[0]) < LARGEST:
                self._place.create(there, stored[0])
            else:
                self._copy(key, there)
            self._place.delete([key])
            moved.append(there)
            if key.startswith(f"{CATALOGS}/") and key != EARLIER:
                self._restore_catalog_note(key)
        return moved

    def _copy(self, key: str, there: str) -> None:
        """Copy an object of any size, piece by piece."""
        (size,) = (e.size for e in self._place.children(key.rpartition("/")[0]) if e.key == key)
        source, writer = self._place.open_reader(key), self._place.open_writer(there, size)
        try:
            for offset in range(0, size, _PIECE):
                piece = memoryview(bytearray(min(_PIECE, size - offset)))
                writer.write(piece[: source.read_into(offset, piece)])
            writer.commit()
        except BaseException:
            writer.abandon()
            raise
        finally:
            source.close()

    def unwrite(self, kind: str, digest: str, fields: Mapping[str, Any]) -> int:
        """Make a written artifact virtual again, remove its files, return their bytes (virtual)."""
        return unwrite(self._place, kind, digest, fields)

    def manifest_key(self, kind: str, digest: str) -> str:
        """Return the key of a manifest, as it was listed."""
        return f"{ARTIFACTS}/{kind}/{digest}/{MANIFEST}"

    def _restore_catalog_note(self, key: str) -> None:
        """Write a catalog's document anew, where a ref below its name tells the catalog."""
        folder = f"{catalog_folder(None)}/{key.split('/')[-1].removesuffix('.json')}"
        for entry in self._place.walk(folder):
            stored = self._place.read(entry.key)
            name = parsed_note(stored[0]).get("catalog") if stored else None
            if isinstance(name, str) and name and catalog_key(name) == key:
                note = {"format": 1, "catalog": name, "by": this_person()}
                self._place.create(key, json.dumps(note, ensure_ascii=False).encode())
                return


_PIECE = 8 << 20  # bytes that are copied at once
_NOTE_WAY_OUT = "`ronghe verify --repair` sets it aside, and writes it anew where it can"

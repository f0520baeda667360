"""The artifact store: immutable artifacts under their digest, on a local folder or an S3 bucket.

    attempts/<id>/<file>                      streamed, hashed while written, visible to nobody
    artifacts/<kind>/<digest>/manifest.json   one small conditional write makes an artifact exist
    refs/<catalog>/<asset>/<partition>.json   a name that points to a digest, with its history

Readers only follow manifests, so a crash at any point leaves no visible artifact. Writing the same
artifact twice, at once or years apart, succeeds; two contents under one digest cannot exist.
Artifacts are common to all catalogs of a store; refs belong to one catalog each (namespaces.py).
"""

import functools
import uuid
from pathlib import Path
from typing import Any

from blake3 import blake3

from resources.errors import (
    ArtifactReadError,
    DamagedArtifactError,
    MissingArtifactError,
    UnsafeStoreError,
    no_answer,
)
from resources.places import Place, open_place
from resources.places.place import PROBE
from resources.reading.records import Progress
from resources.store.artifact import Artifact, parse_manifest
from resources.store.attempts.attempt import Attempt
from resources.store.attempts.gc import GcReport, collect_garbage
from resources.store.attempts.leftovers import remove_dead_copies
from resources.store.attempts.unfinished import Unfinished, take_unfinished
from resources.store.cache import DEFAULT_BYTES, FolderCache
from resources.store.clock import StoreClock
from resources.store.identity import ensure_identity
from resources.store.marks import Marks
from resources.store.names import ARTIFACTS, MANIFEST, manifest_key
from resources.store.namespaces import Namespace
from resources.store.people import this_person
from resources.store.ref_documents import Ref, RefEntry
from resources.store.refs import RefTable, read_ref, read_refs, write_ref
from resources.store.signatures import Signatures
from resources.store.upkeep import Upkeep
from resources.store.virtual import publish_virtual

DAY = 86_400.0
_PIECE = 16 << 20


class ArtifactStore:
    """Artifacts and refs on one root, its `place`. Open one per process; threads may share it.

    Every method raises a `StoreError` (StoreUnreachableError, StoreAccessError, …) when the place
    underneath fails.
    """

    def __init__(self, place: Place, cache: FolderCache, catalog: str | None = None) -> None:
        self.uri = place.uri
        self.cache = cache
        self.place = place
        self.namespace = Namespace(place, catalog)
        self._asked = catalog
        self._clock = StoreClock(place)

    @classmethod
    def open(
        cls,
        uri: str,
        cache: Path | None = None,
        cache_bytes: int = DEFAULT_BYTES,
        catalog: str | None = None,
    ) -> "ArtifactStore":
        """Open `file:///absolute/folder` or `s3://bucket/prefix`; no contact is made yet.

        Names are those of `catalog`. None is for looking into a store of one catalog: it stands for
        that one; where there are several, refs raise StoreAddressError.
        S3 credentials, region and endpoint come from the standard AWS chain. `cache` is where
        artifacts of an S3 store are pulled to (None for ~/.cache/ronghe/artifacts), and
        `cache_bytes` the size that it stays near. StoreAddressError is raised for another URI.
        """
        root = cache or Path.home() / ".cache" / "ronghe" / "artifacts"
        return cls(open_place(uri), FolderCache(root, cache_bytes), catalog)

    def __repr__(self) -> str:
        return f"ArtifactStore({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.uri, self.cache.root, self.cache.most_bytes, self._asked)
        return (ArtifactStore.open, arguments)

    def attempt(self, kind: str, digest: str | None = None) -> Attempt:
        """Start writing an artifact of `kind`; use it as a context manager, and `publish` it.

        With the `digest` it will have, it keeps a journal: killed, it can be found by `unfinished`.
        UnsafeStoreError is raised where the store ignores conditional writes.
        """
        self.probe()
        return Attempt(self.place, kind, self.cache, self.find, digest)

    def publish_virtual(self, kind: str, digest: str, **fields: Any) -> Artifact:
        """Publish an artifact that is planned and not written; return it, or what is there already.

        `fields` are for its manifest, which says `virtual: true`: how its files are made. It is
        a written one when an attempt publishes files under its digest. Raises as `publish` does.
        """
        self.probe()
        return publish_virtual(self.place, self.find, kind, digest, fields)

    def unfinished(self, kind: str, digest: str) -> list[Unfinished]:
        """Return what killed attempts at this artifact left, claimed; the farthest comes first."""
        return take_unfinished(self.place, kind, digest)

    def find(self, kind: str, digest: str) -> Artifact | None:
        """Return the artifact published under `kind` and `digest`, or None, by one small read.

        DamagedArtifactError is raised where its manifest cannot be understood.
        """
        key = manifest_key(kind, digest)
        stored = self.place.read(key)
        if stored is None:
            return None
        where = f"{self.uri}/{key}"
        manifest = parse_manifest(stored[0], where)
        if (manifest["kind"], manifest["digest"]) != (kind, digest):
            raise DamagedArtifactError(
                f"{where}: the manifest is that of {manifest['kind']} {manifest['digest']}; "
                f"it was put here by something else than this store"
            )
        return Artifact(self.place, manifest, self.cache)

    def get(self, kind: str, digest: str) -> Artifact:
        """Return the artifact, as `find` does; MissingArtifactError when there is none."""
        artifact = self.find(kind, digest)
        if artifact is None:
            raise MissingArtifactError(
                f"artifact store {self.uri} has no {kind} artifact {digest}; `ronghe refresh` "
                f"makes what a name of the catalog points to and the store lacks"
            )
        return artifact

    def digests(self, kind: str) -> list[str]:
        """Return the digests of all artifacts of one kind, sorted. One listing."""
        entries = self.place.walk(f"{ARTIFACTS}/{kind}")
        keys = (entry.key.split("/") for entry in entries)
        return [parts[2] for parts in keys if len(parts) == 4 and parts[3] == MANIFEST]

    def kinds(self) -> list[str]:
        """Return the kinds of which anything is published, sorted. One listing."""
        return sorted({entry.key.split("/")[1] for entry in self.place.walk(ARTIFACTS)})

    def point(
        self,
        asset: str,
        partition: str | None,
        kind: str,
        digest: str,
        *,
        run: str | None = None,
        after: RefEntry | None = None,
        **fields: Any,
    ) -> bool:
        """Point a name at a published artifact and note when, from which run, and `fields`.

        The name is an asset's, in which `/` makes folders, and any partition key, or None for an
        unpartitioned asset. `run` is the id of the run that does it; `fields` are JSON values to
        remember with this change, no secrets. Pointing again to the same artifact with the same
        fields changes nothing. MissingArtifactError is raised where nothing is published there.
        With `after`, the change that this one shall follow, nothing is changed and False returned
        where somebody else has changed the name meanwhile.
        """
        self.probe()
        self.get(kind, digest)
        self.namespace.enter(asset, partition, digest, self._clock.now_text)
        entry = RefEntry(kind, digest, self._clock.now_text(), run, fields, this_person())
        name = self.namespace.name
        is_new = write_ref(self.place, name, asset, partition, entry, after)
        if is_new:
            self.namespace.make_known(self._clock.now_text)
        return is_new is not None

    def ref(self, asset: str, partition: str | None = None) -> Ref | None:
        """Return one ref with its history, or None.

        DamagedArtifactError is raised where it cannot be understood, LaterReleaseError (one of
        these) where a later release wrote it.
        """
        name = self.namespace.name
        ref = read_ref(self.place, name, asset, partition)
        if ref is None and name is not None and self.namespace.reads_earlier:
            ref = read_ref(self.place, None, asset, partition)
            if ref is not None:
                self.namespace.tell_earlier()
        return ref

    def refs(self, asset: str) -> dict[str | None, Ref]:
        """Return all readable refs of an asset by partition: one listing and small reads, at once.

        `ref_table` tells what could not be read too.
        """
        return self.ref_table(asset).refs

    def damaged_refs(self, asset: str) -> dict[str, DamagedArtifactError]:
        """Return what is wrong with the refs of an asset that cannot be read, by partition."""
        return self.ref_table(asset).damaged

    def ref_table(self, asset: str) -> RefTable:
        """Read all refs of an asset: those that can be read, and what is wrong with the others."""
        name = self.namespace.name
        table = read_refs(self.place, name, asset)
        if name is None or not self.namespace.reads_earlier:
            return table
        earlier = read_refs(self.place, None, asset)
        if earlier.refs:
            self.namespace.tell_earlier()
        return RefTable({**earlier.refs, **table.refs}, {**earlier.damaged, **table.damaged})

    def resolve(self, asset: str, partition: str | None = None) -> Artifact | None:
        """Return the artifact a ref points to, or None when there is none, or it is vacant."""
        ref = self.ref(asset, partition)
        return self.get(ref.kind, ref.digest) if ref and not ref.vacant else None

    def verify(self, artifact: Artifact, progress: Progress | None = None) -> list[str]:
        """Read all files again, and return what is wrong: a line for each file that differs.

        Of a virtual artifact there is none.
        A place that gives no answer, none in time, or refuses to read says nothing of the files:
        its error, one of `NO_ANSWER`, is raised.
        """
        problems: list[str] = []
        if artifact.virtual:
            return problems
        done = 0
        buffer = memoryview(bytearray(min(_PIECE, max(1, artifact.nbytes))))
        with artifact.source() as source:
            for file in artifact.files.values():
                hasher = blake3(max_threads=blake3.AUTO)
                try:
                    for offset in range(0, file.size, len(buffer)):
                        view = buffer[: min(len(buffer), file.size - offset)]
                        source.read_into(file.path, offset, view)
                        hasher.update(view)
                        done += len(view)
                        if progress:
                            progress(done, artifact.nbytes)
                except ArtifactReadError as error:
                    if (unanswered := no_answer(error)) is not None:
                        raise unanswered from None
                    problems.append(str(error))
                    continue
                if hasher.hexdigest() != file.blake3:
                    problems.append(
                        f"{artifact.uri}: file {file.path!r} has other bytes than were published"
                    )
        return problems

    def gc(
        self,
        grace_seconds: float = DAY,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcReport:
        """Remove attempts that no manifest names and that were silent for longer than the grace.

        Published artifacts are never touched. With `dry_run` nothing is removed, only listed.
        """
        self.upkeep.require(may_be_new=True)
        is_local = self.place.folder("") is not None  # a bucket may hold uploads that were cut off
        if is_local and self.upkeep.absence() is not None:  # nothing is made where nothing was
            return GcReport(dry_run, (), 0)
        if not dry_run:
            self.probe()
            remove_dead_copies(self.cache.root)
        return collect_garbage(self.place, grace_seconds, dry_run, progress)

    @functools.cached_property
    def marks(self) -> Marks:
        """What is withdrawn, for every catalog of the store."""
        return Marks(self.place, self._clock)

    @functools.cached_property
    def signatures(self) -> Signatures:
        """Signatures of contents, beside the artifacts and no part of their digests."""
        return Signatures(self.place)

    @functools.cached_property
    def upkeep(self) -> Upkeep:
        """What looks after the store: its identity, its catalogs, what is wrong, repairs."""
        return Upkeep(self.place, self.namespace, self._clock)

    def probe(self) -> None:
        """Check, once per process, that the store honours the conditional writes all this needs.

        UnsafeStoreError is raised where it does not; publishing there would lose data.
        """
        _ = self._probed

    @functools.cached_property
    def _probed(self) -> bool:
        key = f"{PROBE}/{uuid.uuid4().hex}"
        created = self.place.create(key, b"1")
        again = self.place.create(key, b"2")
        stored = self.place.read(key)
        tag = stored[1] if stored else ""
        replaced = self.place.replace(key, b"3", tag)
        stale = self.place.replace(key, b"4", tag)
        self.place.delete([key])
        if not created or again or stored is None or stored[0] != b"1":
            raise UnsafeStoreError(_refusal(self.uri, "If-None-Match: * (create only)"))
        if not replaced or stale:
            raise UnsafeStoreError(_refusal(self.uri, "If-Match: <ETag> (replace only)"))
        ensure_identity(self.place)
        return True


def _refusal(uri: str, condition: str) -> str:
    return (
        f"artifact store {uri} does not honour {condition} on PUT, so two writers could overwrite "
        f"each other's results; nothing is written there. Use a store that does (AWS S3, MinIO, "
        f"Ceph RGW, SeaweedFS), or a file:// store"
    )

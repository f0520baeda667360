"""An attempt: files being written, invisible until one conditional write publishes them."""

import contextlib
import json
import threading
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from blake3 import blake3

from resources.errors import AttemptError, ContentConflictError, StoreError, StoreFailureError
from resources.places import Place, PlaceWriter
from resources.reading.digest_tree import PIECE, TREE, PieceHasher, join_tree
from resources.reading.records import FileRecord, content_digest
from resources.store.artifact import Artifact, is_virtual, manifest_bytes, parse_manifest
from resources.store.attempts.journal import Journal
from resources.store.attempts.owners import this_process
from resources.store.cache import FolderCache
from resources.store.names import (
    ATTEMPTS,
    CLAIM_SUFFIX,
    MARKER_SUFFIX,
    file_fault,
    manifest_key,
)

Find = Callable[[str, str], Artifact | None]


class Attempt:
    """Files on their way to become an artifact; use it as a context manager.

    Several files may be open at once, in several threads. Left without `publish`, or with an
    exception, it removes what it wrote; killed, it leaves that for gc. Get one from the store.
    """

    def __init__(
        self, place: Place, kind: str, cache: FolderCache, find: Find, digest: str | None = None
    ) -> None:
        manifest_key(kind, "0" * 64)  # the kind must be right before anything is written
        self.kind = kind
        self.id = uuid.uuid4().hex
        self.folder_key = f"{ATTEMPTS}/{self.id}"
        self._place = place
        self._cache = cache
        self._find = find
        self._files: dict[str, FileRecord | None] = {}  # None while a file is being written
        self._pieces: dict[str, bytes] = {}  # digests of each file's pieces
        self._lock = threading.Lock()
        self._undecided = False  # a manifest may name our files: only gc may judge
        self._published: Artifact | None = None
        self.journal = Journal(place, self.folder_key + MARKER_SUFFIX, kind, digest)
        weakref.finalize(self, self.journal.stop)

    def open(self, file: str, size: int) -> "AttemptWriter":
        """Start a file of exactly `size` bytes, written in order and hashed on the way.

        Its name is a relative POSIX path without `..` or anything hidden. AttemptError is raised
        for an unsafe name, one used already, or when the attempt is published; and when the file
        is closed with more or fewer bytes.
        """
        fault = file_fault(file)
        if fault:
            raise AttemptError(f"a {self.kind} artifact cannot hold a file {file!r}: it {fault}")
        with self._lock:
            if self._published is not None or self._undecided:
                raise AttemptError(f"cannot write {file!r}: this attempt is published already")
            if file in self._files:
                raise AttemptError(f"cannot write {file!r} twice in one {self.kind} artifact")
            self._files[file] = None
        try:
            writer = self._place.open_writer(f"{self.folder_key}/{file}", size)
        except BaseException:
            self._forget(file)
            raise
        return AttemptWriter(self, file, size, writer)

    def expect(self, file: str, nbytes: int, digest: str) -> None:
        """Have the first `nbytes` bytes of `file` compared with a blake3 when they are written.

        The write that completes them raises UnfinishedReadError when they are others.
        """
        self.journal.expect(file, nbytes, digest)

    def write_bytes(self, file: str, data: bytes) -> None:
        """Write one whole small file."""
        with self.open(file, len(data)) as writer:
            writer.write(data)

    def write_json(self, file: str, data: Any) -> None:
        """Write one whole file of JSON, keys sorted, so that equal data is equal bytes."""
        text = json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
        self.write_bytes(file, (text + "\n").encode())

    def publish(self, digest: str | None = None, **manifest_fields: Any) -> Artifact:
        """Make the artifact exist, by one conditional write of its manifest.

        It will be found by `digest`, usually a plan's; None stands for its content digest.
        `manifest_fields` are what else the manifest shall say (plan, inputs, licences, versions):
        JSON values, no secrets. Asking again with the same contents, from anywhere, succeeds and
        returns the artifact that is there; its manifest stays as it was. A virtual artifact becomes
        the written one, by one conditional write too.

        ContentConflictError is raised where other contents are published under this kind and
        digest; AttemptError where there are no files, one is open, fields are no JSON or hold a
        secret, or gc removed the attempt.
        """
        files = self._finished_files()
        content = content_digest(files)
        digest = content if digest is None else digest
        key = manifest_key(self.kind, digest)
        tree = join_tree(self._pieces)
        data = self._manifest(digest, content, files, tree, manifest_fields)
        if tree:
            self._place.create(f"{self.folder_key}/{TREE}", tree)
        self._place.settle(self.folder_key)
        self._claim(files)
        self._undecided = True  # from here an error may hide a manifest that was written
        created = self._place.create(key, data) or self._written_now(key, data)
        if created:
            artifact = Artifact(self._place, json.loads(data), self._cache)
        else:
            artifact = self._already_there(digest, key)
        self._undecided = False
        if artifact.content_digest != content:
            raise ContentConflictError(self._conflict(artifact, files))
        self._published = artifact
        self._tidy([] if artifact.manifest["attempt"] == self.id else files)
        return artifact

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, *error: object) -> None:
        self.journal.stop()
        if self._published is None and not self._undecided:
            self._tidy(self._place_files())

    def _manifest(
        self,
        digest: str,
        content: str,
        files: list[FileRecord],
        tree: bytes,
        fields: dict[str, Any],
    ) -> bytes:
        made: dict[str, Any] = {
            "kind": self.kind,
            "digest": digest,
            "content_digest": content,
            "attempt": self.id,
            "files": [vars(file) for file in files],
        }
        if tree:
            made["pieces"] = {"bytes": PIECE, "blake3": blake3(tree).hexdigest()}
        return manifest_bytes(self._place, made, fields)

    def _written_now(self, key: str, data: bytes) -> bool:
        """Put the manifest in the place of a virtual one; False where there is none (any more)."""
        stored = self._place.read(key)
        if stored is None or not is_virtual(parse_manifest(stored[0], f"{self._place.uri}/{key}")):
            return False
        return self._place.replace(key, data, stored[1])

    def _already_there(self, digest: str, key: str) -> Artifact:
        artifact = self._find(self.kind, digest)
        if artifact is None:
            raise StoreFailureError(
                f"artifact store {self._place.uri}: {key} cannot be created, as if it were there, "
                f"but is not there either; check the storage underneath, and run again"
            )
        return artifact

    def _finished_files(self) -> list[FileRecord]:
        with self._lock:
            if self._published is not None:
                raise AttemptError(f"this {self.kind} attempt is published already; start another")
            still_open = sorted(file for file, record in self._files.items() if record is None)
            files = sorted(record for record in self._files.values() if record is not None)
        if still_open or not files:
            what = f"{still_open[0]!r} is still being written" if still_open else "has no files"
            raise AttemptError(f"cannot publish a {self.kind} artifact: {what}")
        return files

    def _claim(self, files: list[FileRecord]) -> None:
        """Decide against gc: whoever creates the claim first owns the attempt's fate.

        gc deletes its claim last, so a claim won late still finds the files missing.
        """
        key = self.folder_key + CLAIM_SUFFIX
        claim = {"by": "publish", "kind": self.kind, **this_process()}
        won = self._place.create(key, json.dumps(claim).encode())
        if not won:
            standing = self._place.read(key)
            won = standing is not None and json.loads(standing[0]).get("by") == "publish"
        there = {entry.key: entry.size for entry in self._place.walk(self.folder_key)}
        if not won or any(there.get(f"{self.folder_key}/{f.path}") != f.size for f in files):
            raise AttemptError(
                f"{self.kind} attempt {self.id} was removed by gc, or taken over by another run, "
                f"as it gave no sign of life for long; run again, and run gc with a longer grace"
            )

    def _place_files(self) -> list[FileRecord]:
        with self._lock:
            return [record for record in self._files.values() if record is not None]

    def _tidy(self, files: list[FileRecord]) -> None:
        """Remove `files`, the marker and the claim; what fails here is left for gc."""
        self.journal.stop()
        keys = [f"{self.folder_key}/{file.path}" for file in files]
        if files and self._pieces:
            keys.append(f"{self.folder_key}/{TREE}")
        with contextlib.suppress(StoreError):
            self._place.delete(
                [*keys, self.folder_key + MARKER_SUFFIX, self.folder_key + CLAIM_SUFFIX]
            )

    def _conflict(self, found: Artifact, files: list[FileRecord]) -> str:
        mine = {file.path: file.blake3 for file in files}
        theirs = {file.path: file.blake3 for file in found.files.values()}
        differ = sorted(
            path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path)
        )
        return (
            f"{found.uri} is published already with other contents: {', '.join(differ[:5])} "
            f"differ{'s' if len(differ) == 1 else ''}. The same digest must mean the same bytes: "
            f"whatever made these files depends on something the digest does not cover"
        )

    def _record(self, record: FileRecord, pieces: bytes) -> None:
        with self._lock:
            self._files[record.path] = record
            if pieces:
                self._pieces[record.path] = pieces
        self.journal.committed(record.path)

    def _forget(self, file: str) -> None:
        with self._lock:
            self._files.pop(file, None)
        self.journal.forget(file)


class AttemptWriter:
    """One file of an attempt, written in order; left with an exception, it leaves nothing."""

    def __init__(self, attempt: Attempt, file: str, size: int, writer: PlaceWriter) -> None:
        self._attempt = attempt
        self._file = file
        self._size = size
        self._writer = writer
        self._done = 0
        self._hasher = blake3()
        self._pieces = PieceHasher() if size > PIECE else None  # one piece is the whole file

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes; AttemptError when they are more than the size that was announced."""
        view = memoryview(data).cast("B")
        self._done += len(view)
        if self._done > self._size:
            raise AttemptError(f"{self._file!r} was announced with {self._size} bytes; more came")
        self._hasher.update(view)
        if self._pieces is not None:
            self._pieces.update(view)
        self._writer.write(view)
        self._attempt.journal.mark(self._file, self._size, self._done, self._hasher)

    def __enter__(self) -> "AttemptWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException:
            self._abandon()
            raise
        if kind is not None:
            self._abandon()

    def _finish(self) -> None:
        if self._done != self._size:
            raise AttemptError(
                f"{self._file!r} was announced with {self._size} bytes; {self._done} came"
            )
        self._writer.commit()
        pieces = b"" if self._pieces is None else self._pieces.digests()
        self._attempt._record(FileRecord(self._file, self._size, self._hasher.hexdigest()), pieces)

    def _abandon(self) -> None:
        self._writer.abandon()
        self._attempt._forget(self._file)

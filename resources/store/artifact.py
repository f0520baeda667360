"""A published artifact: an immutable set of files that one manifest makes exist."""

import json
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from resources.errors import (
    AttemptError,
    DamagedArtifactError,
    LaterReleaseError,
    VirtualArtifactError,
)
from resources.places import Place
from resources.reading.artifact_source import ArtifactSource
from resources.reading.digest_tree import PIECE, TREE, PieceHasher, cut_tree, note_fault
from resources.reading.records import FileRecord, Progress, content_digest
from resources.store.cache import FolderCache, Pin, wrong_file
from resources.store.names import ATTEMPTS, WAY_OUT, file_fault, manifest_key, refuse_secrets

FORMAT = 1
RESERVED = (
    "format", "kind", "digest", "content_digest", "attempt", "files", "created", "pieces", "virtual"
)  # fmt: skip

_RUN = 8 << 20  # bytes read at once
_HASH = re.compile(r"[0-9a-f]{64}")


class Artifact:
    """A published, immutable set of files. Get one from the store; keep it while you use it.

    It is asked for by `kind` and `digest`; `content_digest` is the blake3 of its file list, and
    `uri` says where its manifest is, without the file name. `manifest` is everything in there, also
    the fields given to `publish`; `files` are its files by path, `nbytes` their bytes together. One
    that is `virtual` has none: its manifest says how they are made, and whoever asks for them gets
    VirtualArtifactError.
    """

    def __init__(self, place: Place, manifest: Mapping[str, Any], cache: FolderCache) -> None:
        self.manifest = dict(manifest)
        self.kind: str = manifest["kind"]
        self.digest: str = manifest["digest"]
        self.content_digest: str = manifest["content_digest"]
        self.uri = f"{place.uri}/{manifest_key(self.kind, self.digest).rsplit('/', 1)[0]}"
        self.files = {file["path"]: _record(file) for file in manifest["files"]}
        self.nbytes = sum(file.size for file in self.files.values())
        self._place = place
        self._cache = cache
        self._pins: dict[Path, Pin] = {}
        self._tree: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Artifact({self.uri!r}, {len(self.files)} files, {self.nbytes} bytes)"

    @property
    def virtual(self) -> bool:
        """Return whether it is planned and not written."""
        return is_virtual(self.manifest)

    @property
    def location(self) -> str:
        """Return where its files lie: a local store's folder, for `from_pretrained`, or a URI.

        A virtual one has none and gives `uri`.
        """
        if self.virtual:
            return self.uri
        key = f"{ATTEMPTS}/{self.manifest['attempt']}"
        folder = self._place.folder(key)
        return str(folder) if folder is not None else f"{self._place.uri}/{key}"

    def _refuse_virtual(self) -> None:
        if self.virtual:
            raise VirtualArtifactError(
                f"{self.uri} is virtual: it is planned, and its files are not written;"
                f" `ronghe materialize {self.digest[:12]}` writes them"
            )

    def key(self, file: str) -> str:
        """Return the place's key of one file; DamagedArtifactError when there is no such file."""
        self._refuse_virtual()
        if file not in self.files:
            raise DamagedArtifactError(
                f"{self.uri} has no file {file!r}; it has {', '.join(sorted(self.files)) or 'none'}"
            )
        return f"{ATTEMPTS}/{self.manifest['attempt']}/{file}"

    def source(self) -> ArtifactSource:
        """Return random access to the files, straight from the store; thread-safe.

        All that is read is checked against what was published.
        """
        self._refuse_virtual()
        return ArtifactSource(self, self._place)

    def piece_digests(self, file: str) -> tuple[int, bytes]:
        """Return the bytes of a piece and the digests of the file's pieces, one behind the other.

        The tree is fetched and checked when a file of more than one piece first asks for it. Such
        a file of an artifact that was published without a tree is read once, whole, and compared
        with its hash. DamagedArtifactError is raised where the tree or the file is missing, or is
        not the one published.
        """
        record, note = self.files[file], self.manifest.get("pieces")
        piece = note["bytes"] if note else PIECE
        if record.size <= piece:
            return piece, bytes.fromhex(record.blake3)
        with self._lock:
            if note and not self._tree:
                self._tree = self._read_tree(note)
            elif file not in self._tree:
                self._tree[file] = self._hash_pieces(record)
            return piece, self._tree[file]

    def _hash_pieces(self, record: FileRecord) -> bytes:
        """The digests of the pieces of a file that has only a hash as a whole."""
        hasher, pieces = blake3(max_threads=blake3.AUTO), PieceHasher()
        reader = self._place.open_reader(self.key(record.path))
        buffer = memoryview(bytearray(min(_RUN, record.size)))
        whole = True
        try:
            for start in range(0, record.size, len(buffer)):
                part = buffer[: min(len(buffer), record.size - start)]
                ahead = max(0, min(_RUN, record.size - start - len(part)))
                got = part[: reader.read_into(start, part, ahead)]
                hasher.update(got)
                pieces.update(got)
                whole = len(got) == len(part)
                if not whole:  # a manifest may say any size
                    break
        finally:
            reader.close()
        if not whole or hasher.hexdigest() != record.blake3:
            raise DamagedArtifactError(
                f"{self.uri}: file {record.path!r} has other bytes than were published; check the "
                f"store with verify, and the storage underneath"
            )
        return pieces.digests()

    def _read_tree(self, note: Mapping[str, Any]) -> dict[str, bytes]:
        stored = self._place.read(f"{ATTEMPTS}/{self.manifest['attempt']}/{TREE}")
        data = stored[0] if stored else b""
        sizes = {path: record.size for path, record in self.files.items()}
        tree = cut_tree(data, sizes, note["bytes"])
        if blake3(data).hexdigest() != note["blake3"] or not tree:
            raise DamagedArtifactError(
                f"{self.uri}: the digests of its pieces ({TREE} beside its files) are missing or "
                f"are not those published; {WAY_OUT}"
            )
        return tree

    def read_bytes(self, file: str) -> bytes:
        """Return one whole small file, checked against its hash.

        DamagedArtifactError is raised where it is not there or has not the published bytes.
        """
        stored = self._place.read(self.key(file))
        if stored is None or blake3(stored[0]).hexdigest() != self.files[file].blake3:
            what = "is missing" if stored is None else "has other bytes than were published"
            raise DamagedArtifactError(f"{self.uri}: file {file!r} {what}; {WAY_OUT}")
        return stored[0]

    def read_json(self, file: str) -> Any:
        """Return one file parsed as JSON."""
        return json.loads(self.read_bytes(file))

    def folder(
        self,
        cache: Path | None = None,
        progress: Progress | None = None,
        checked: bool = True,
    ) -> Path:
        """Return a local folder that holds the files, compared with their hashes each time.

        Read it, never write it. In a local store that is the attempt's own folder. From S3 the
        files are pulled once into a bounded cache (`cache`, or the store's) by content digest, and
        stay there at least as long as this Artifact object lives. DamagedArtifactError is raised
        where a file is missing or has wrong bytes. Without `checked`, for whoever has just checked
        or reads nothing, only sizes are compared in a local store.
        """
        self._refuse_virtual()
        local = self._place.folder(f"{ATTEMPTS}/{self.manifest['attempt']}")
        if local is not None:
            self._check_sizes(local)
            fault = wrong_file(local, self.files.values()) if checked else None
            if fault is not None:
                raise DamagedArtifactError(
                    f"{self.uri}: file {fault!r} has other bytes than were published; check the "
                    f"store with verify, and the storage underneath"
                )
            return local
        chosen = self._cache if cache is None else self._cache.at(cache)
        if checked or chosen.root not in self._pins:
            held = self._pins.get(chosen.root)
            self._pins[chosen.root] = chosen.pull(self, progress, held)
        return self._pins[chosen.root].folder

    def _check_sizes(self, folder: Path) -> None:
        for file in self.files.values():
            path = folder / file.path
            if not path.is_file() or path.stat().st_size != file.size:
                raise DamagedArtifactError(
                    f"{self.uri}: file {file.path!r} is missing from {folder} or has not the "
                    f"{file.size} bytes that were published"
                )


def is_virtual(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest is that of an artifact that is planned and not written."""
    return manifest.get("virtual") is True


def manifest_bytes(place: Place, made: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
    """Return a new manifest as it is written: what the store says in it (`made`), then `fields`.

    AttemptError is raised where a field is one of the store's own, or no JSON value,
    SecretFoundError where one holds a secret.
    """
    virtual = "virtual " if is_virtual(made) else ""
    where = f"the manifest of {virtual}{made['kind']} artifact {made['digest']}"
    taken = sorted(set(fields) & set(RESERVED))
    if taken:
        raise AttemptError(f"{where} sets {', '.join(taken)} itself; choose other field names")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        document = {"format": FORMAT, **made, "created": created, **fields}
        text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise AttemptError(
            f"{where} can hold only JSON values (finite numbers, text): {error}"
        ) from error
    refuse_secrets(text, place.secrets(), where)
    return data


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """Parse and check a manifest; every name in it is safe afterwards.

    DamagedArtifactError is raised where it is no manifest, LaterReleaseError for a later format.
    """
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedArtifactError(f"{where}: the manifest is no JSON. {WAY_OUT}") from error
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if type(number) is int and number > FORMAT:
        raise LaterReleaseError(
            f"{where}: the manifest is not of format {FORMAT} but of {number}, which a later"
            " release writes; use that release"
        )
    fault = _manifest_fault(manifest)
    if fault:
        raise DamagedArtifactError(f"{where}: the manifest {fault}. {WAY_OUT}")
    return manifest


def _manifest_fault(manifest: Any) -> str | None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return f"is not of format {FORMAT}"
    if not all(isinstance(manifest.get(name), str) for name in RESERVED[1:5]):
        return f"lacks one of {', '.join(RESERVED[1:5])}"
    if not (manifest["kind"].isascii() and manifest["digest"].isascii()):
        return "has a kind or a digest that no artifact can have"
    if file_fault(manifest["attempt"]) or "/" in manifest["attempt"]:
        return "has no proper attempt"
    files = manifest.get("files")
    if not isinstance(files, list) or not all(_is_record(file) for file in files):
        return "has no proper list of files"
    if is_virtual(manifest) and files:
        return "is virtual, and lists files all the same"
    records = [_record(file) for file in files]
    if len({record.path for record in records}) != len(records):
        return "lists a file twice"
    if content_digest(records) != manifest["content_digest"]:
        return "lists other files than its content digest says"
    return note_fault(manifest["pieces"]) if "pieces" in manifest else None


def _is_record(file: Any) -> bool:
    return (
        isinstance(file, dict)
        and file_fault(file.get("path")) is None
        and type(file.get("size")) is int
        and 0 <= file["size"] < 1 << 63
        and isinstance(file.get("blake3"), str)
        and _HASH.fullmatch(file["blake3"]) is not None
    )


def _record(file: Mapping[str, Any]) -> FileRecord:
    return FileRecord(file["path"], file["size"], file["blake3"])

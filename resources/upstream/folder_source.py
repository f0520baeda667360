"""A model in a local folder; its revision is the hash of its files.

Hashes are remembered by (size, mtime, ctime, inode, device), so looking again costs a `stat` a
file. A remembered hash is trusted only when the file was last touched more than two seconds before
it was hashed: a write in the same tick of a coarse file clock would leave the stamps as they were.
What the memory cannot tell, bytes that a disk lost under equal stamps, is found by whoever reads
the files: `copy_to` compares what it copies with the hash, a merge with the note (`Note`).
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from blake3 import blake3

from resources.errors import MissingSourceError, ModelSourceError, SourceChangedError
from resources.reading import FileRecord, Progress, content_digest
from resources.upstream.cache_notes import read_note
from resources.upstream.folder_door import FolderDoor, FolderLook, RefusedFileError
from resources.upstream.source import (
    MAX_SIDE_FILE,
    MODULE_FOLDER,
    TEMPLATE_FOLDER,
    TEXT_SUFFIXES,
    WEIGHT_SUFFIXES,
    FileSink,
    wanted_files,
)

_PIECE = 2 << 20  # still in a cache of the processor when its hash is taken, and then the note
_FORMAT = 2
RACY_NS = 2_000_000_000  # the coarsest clock of a file system that is in use: FAT's


class FileState(NamedTuple):
    """What tells a file from a changed one without reading it: bytes, nanoseconds, inode."""

    size: int
    modified: int
    changed: int
    inode: int
    device: int


class Note(Protocol):
    """What a caller wants to know of a file's bytes beside their hash, such as checksums.

    Its text begins with the `version`; what was noted by another one is not used.
    """

    version: str

    def update(self, data: memoryview) -> None:
        """Take the next bytes of the file."""
        ...

    def text(self) -> str:
        """Return what is known once all bytes came; it is remembered beside the hash."""
        ...


class FileHash(NamedTuple):
    """What a file was when it was hashed: its state, the blake3, and the caller's note."""

    state: FileState
    blake3: str
    note: str


class FolderModel:
    """A Hugging Face style folder on a local disk.

    What of it may be read is the business of `folder_door`; `follow_links` is for people's own.
    With a `note` one is taken of every file that is hashed.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path | None = None,
        note: type[Note] | None = None,
        follow_links: bool = False,
    ) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.follow_links = follow_links
        self._door = FolderDoor(self.folder, follow_links)
        self.location = str(self.folder)
        self._hashes = _Hashes(
            cache or Path.home() / ".cache" / "ronghe" / "revisions", self.folder
        )
        self._note = note
        self._pinned: dict[str, FileHash] | None = None

    def revision(self, progress: Progress | None = None) -> str:
        """Return the blake3 of the files' paths, sizes and contents."""
        self._refuse_large()
        hashed = self.hashes(progress)
        return content_digest(
            FileRecord(file, each.state.size, each.blake3) for file, each in hashed.items()
        )

    def hashes(self, progress: Progress | None = None) -> Mapping[str, FileHash]:
        """Return the hash of every file by path, and pin them for `copy_to`."""
        states = self._states()
        total, done = sum(state.size for state in states.values()), 0
        hashed: dict[str, FileHash] = {}
        for file, state in states.items():
            known = self._hashes.find(file, state, self._note.version if self._note else "")
            hashed[file] = known or self._hash(file, state)
            done += state.size
            if progress:
                progress(done, total)
        self._hashes.save(states)
        self._pinned = hashed
        return hashed

    def resolved(self) -> None:
        """Return None: a folder's name says nothing elsewhere."""

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files; SourceChangedError when one changed since `revision`, or meanwhile.

        So it is where one has other bytes than were hashed, though nothing else tells.
        """
        pinned = self._pinned
        self._refuse_large()
        states = self._states() if pinned is None else {f: h.state for f, h in pinned.items()}
        total, done = sum(state.size for state in states.values()), 0
        for file, state in states.items():
            hasher = blake3()
            with sink.open(file, state.size) as writer:
                for piece in self._read(file, state):
                    hasher.update(piece)
                    writer.write(piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)
                if pinned is not None and hasher.hexdigest() != pinned[file].blake3:
                    self._hashes.forget(file, states)
                    raise SourceChangedError(
                        f"model source {self.location}: {file} has other bytes than when it was "
                        f"hashed, though its size and times are the same: the disk may have "
                        f"damaged it. Restore it, or run again to take it as it is"
                    )

    def _states(self) -> dict[str, FileState]:
        """The files that are taken, but those beside the weights that are far too large."""
        return {file: state for file, state in self._found().items() if not _too_large(file, state)}

    def _found(self) -> dict[str, FileState]:
        if not os.path.isdir(self.folder):
            raise MissingSourceError(
                f"model source {self.location} is not there, or is no folder; correct it in the "
                f"catalog, or make the model first"
            )
        with _readable(self.location):
            look = self._door.look()
            _refuse(self.location, look)
            of_model = [
                name
                for name in look.files
                if "/" not in name or name.partition("/")[0] == TEMPLATE_FOLDER
                or MODULE_FOLDER.fullmatch(name.partition("/")[0])
            ]  # fmt: skip
            states = {
                file: _state_of(look.files[file]) for file in wanted_files(of_model, self.location)
            }
        return states

    def _refuse_large(self) -> None:
        """Refuse files beside the weights of a size that no such file has, before one is read."""
        for file, state in self._found().items():
            if _too_large(file, state):
                raise ModelSourceError(
                    f"model source {self.location}: {file} has {state.size} bytes, and a file "
                    f"beside the weights has at most {MAX_SIDE_FILE}; move it out of the folder"
                )

    def _state(self, file: str) -> FileState | None:
        """What a name leads to now."""
        try:
            return _state_of((self.folder / file).stat())
        except FileNotFoundError:
            return None

    def _hash(self, file: str, state: FileState) -> FileHash:
        started = time.time_ns()
        hasher = blake3(max_threads=blake3.AUTO)
        note = self._note() if self._note is not None else None
        for piece in self._read(file, state):
            hasher.update(piece)
            if note is not None:
                note.update(piece)
        found = FileHash(state, hasher.hexdigest(), note.text() if note is not None else "")
        self._hashes.remember(file, started, found)
        return found

    def _read(self, file: str, state: FileState) -> Iterator[memoryview]:
        """The file's bytes in pieces, provided that it is in `state` before and after."""
        buffer = memoryview(bytearray(min(_PIECE, max(1, state.size))))
        changed = SourceChangedError(
            f"model source {self.location}: {file} changed while it was read; wait until whatever "
            f"writes it is done, and run again"
        )
        with _readable(self.location), FileIO(self._door.open(file)) as opened:
            left = state.size
            if _state_of(os.fstat(opened.fileno())) != state:
                raise changed
            while left:
                got = opened.readinto(buffer[: min(left, len(buffer))])
                if not got:
                    raise changed
                left -= got
                yield buffer[:got]
            if not self._state(file) == _state_of(os.fstat(opened.fileno())) == state:
                raise changed


def _too_large(file: str, state: FileState) -> bool:
    return state.size > MAX_SIDE_FILE and not file.endswith(WEIGHT_SUFFIXES)


def _state_of(found: os.stat_result) -> FileState:
    return FileState(
        found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
    )


class _Hashes:
    """Hashes of one folder's files, remembered in a small file of the cache.

    It begins with a line that says its format and the blake3 of the rest: where that is wrong, or
    anything else, nothing is remembered.
    """

    def __init__(self, cache: Path, folder: Path) -> None:
        self._file = cache / f"{blake3(os.fsencode(folder)).hexdigest()[:32]}.json"
        self._known: dict[str, tuple[int, FileHash]] | None = None
        self._dirty = False

    def find(self, file: str, state: FileState, version: str) -> FileHash | None:
        """Return the hash of a file in exactly this state, with a note of that version."""
        row = self._load().get(file)
        if row is None or row[1].state != state or not row[1].note.startswith(version):
            return None
        settled = max(state.modified, state.changed) + RACY_NS < row[0]
        return row[1] if settled else None

    def remember(self, file: str, hashed_at: int, found: FileHash) -> None:
        """Note the hash of a file that was in its state from `hashed_at` (ns) on."""
        self._load()[file] = (hashed_at, found)
        self._dirty = True

    def forget(self, file: str, present: Mapping[str, FileState]) -> None:
        """Have a file hashed again by whoever asks next."""
        self._dirty = self._load().pop(file, None) is not None
        self.save(present)

    def save(self, present: Mapping[str, FileState]) -> None:
        """Write what is new; a cache that cannot be written only costs hashing again."""
        if not self._dirty:
            return
        rows = {file: row for file, row in self._load().items() if file in present}
        temporary = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        text = json.dumps(rows).encode()
        first = json.dumps({"format": _FORMAT, "blake3": blake3(text).hexdigest()}).encode()
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(first + b"\n" + text)
            temporary.replace(self._file)
            self._dirty = False

    def _load(self) -> dict[str, tuple[int, FileHash]]:
        if self._known is None:
            self._known = {}
            # Whatever is wrong with a memory, it only costs hashing again.
            with contextlib.suppress(Exception):
                self._known = _remembered(read_note(self._file))
        return self._known


def _remembered(data: bytes) -> dict[str, tuple[int, FileHash]]:
    """The rows of a memory. Raises anything where it is none."""
    first, _, text = data.partition(b"\n")
    if len(first) > 200 or json.loads(first)["format"] != _FORMAT:
        raise ValueError("another format")
    if json.loads(first)["blake3"] != blake3(text).hexdigest():
        raise ValueError("a damaged memory")
    rows: dict[str, Any] = json.loads(text)
    return {
        file: (at, FileHash(FileState(*state), digest, note))
        for file, (at, (state, digest, note)) in rows.items()
    }


def _refuse(location: str, look: FolderLook) -> None:
    """Refuse a folder with files that may not be read, or with dead links of weights and texts."""
    if look.refused:
        told = "; ".join(list(look.refused.values())[:20])
        raise ModelSourceError(
            f"model source {location} is refused: {told}. (In a catalog --follow-links is"
            " `follow_links: true`)"
        )
    for file, target in sorted(look.dead.items()):
        if Path(file).suffix in TEXT_SUFFIXES or file.endswith(WEIGHT_SUFFIXES):
            raise MissingSourceError(
                f"model source {location}: {file} is a link to {target}, which is "
                f"gone (a Hugging Face cache after a clean-up?); download the model again"
            )


@contextlib.contextmanager
def _readable(location: str) -> Iterator[None]:
    try:
        yield
    except RefusedFileError as error:
        raise ModelSourceError(f"model source {location} is refused: {error}") from error
    except OSError as error:
        raise ModelSourceError(
            f"model source {location} cannot be read: {error.strerror or error}; check that this "
            f"user may read the folder"
        ) from error

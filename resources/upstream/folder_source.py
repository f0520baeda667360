"""A model in a local folder; its revision is the hash of its files.

Hashes are remembered by (size, mtime, ctime, inode), so looking again costs a `stat` a file. A
remembered hash is trusted only when the file was last touched more than two seconds before it was
hashed: a write in the same tick of a coarse file clock would leave the stamps as they were.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from resources.errors import MissingSourceError, ModelSourceError, SourceChangedError
from resources.reading import FileRecord, Progress, content_digest
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

_PIECE = 16 << 20
RACY_NS = 2_000_000_000  # the coarsest clock of a file system that is in use: FAT's


class FileState(NamedTuple):
    """What tells a file from a changed one without reading it: bytes, nanoseconds, inode."""

    size: int
    modified: int
    changed: int
    inode: int


class FolderModel:
    """A Hugging Face style folder on a local disk.

    What of it may be read is the business of `folder_door`; `follow_links` is for people's own.
    """

    def __init__(self, folder: Path, cache: Path | None = None, follow_links: bool = False) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.follow_links = follow_links
        self._door = FolderDoor(self.folder, follow_links)
        self.location = str(self.folder)
        self._hashes = _Hashes(
            cache or Path.home() / ".cache" / "ronghe" / "revisions", self.folder
        )
        self._pinned: dict[str, FileState] | None = None

    def revision(self, progress: Progress | None = None) -> str:
        """Return the blake3 of the files' paths, sizes and contents."""
        states = self._states()
        total, done = sum(state.size for state in states.values()), 0
        records: list[FileRecord] = []
        for file, state in states.items():
            digest = self._hashes.find(file, state) or self._hash(file, state)
            records.append(FileRecord(file, state.size, digest))
            done += state.size
            if progress:
                progress(done, total)
        self._hashes.save(states)
        self._pinned = states
        return content_digest(records)

    def resolved(self) -> None:
        """Return None: a folder's name says nothing elsewhere."""

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files; SourceChangedError when one changed since `revision`, or meanwhile."""
        states = self._states() if self._pinned is None else self._pinned
        total, done = sum(state.size for state in states.values()), 0
        for file, state in states.items():
            with sink.open(file, state.size) as writer:
                for piece in self._read(file, state):
                    writer.write(piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)

    def _states(self) -> dict[str, FileState]:
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
                file: _state(look.files[file]) for file in wanted_files(of_model, self.location)
            }
        for file, state in states.items():
            if not file.endswith(WEIGHT_SUFFIXES) and state.size > MAX_SIDE_FILE:
                raise ModelSourceError(
                    f"model source {self.location}: {file} has {state.size} bytes, and a file "
                    f"beside the weights has at most {MAX_SIDE_FILE}; move it out of the folder"
                )
        return states

    def _hash(self, file: str, state: FileState) -> str:
        started = time.time_ns()
        hasher = blake3(max_threads=blake3.AUTO)
        for piece in self._read(file, state):
            hasher.update(piece)
        digest = hasher.hexdigest()
        self._hashes.remember(file, state, started, digest)
        return digest

    def _read(self, file: str, state: FileState) -> Iterator[memoryview]:
        """The file's bytes in pieces, provided that it is in `state` before and after."""
        buffer = memoryview(bytearray(min(_PIECE, max(1, state.size))))
        changed = SourceChangedError(
            f"model source {self.location}: {file} changed while it was read; wait until whatever "
            f"writes it is done, and run again"
        )
        with _readable(self.location), FileIO(self._door.open(file)) as opened:
            left = state.size
            if _state(os.fstat(opened.fileno())) != state:
                raise changed
            while left:
                got = opened.readinto(buffer[: min(left, len(buffer))])
                if not got:
                    raise changed
                left -= got
                yield buffer[:got]
            if _state(os.fstat(opened.fileno())) != state or not self._is_still(file, state):
                raise changed

    def _is_still(self, file: str, state: FileState) -> bool:
        """Whether the name still leads to the file that was read."""
        try:
            return _state((self.folder / file).stat()) == state
        except FileNotFoundError:
            return False


class _Hashes:
    """Hashes of one folder's files, remembered in a small file of the cache."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self._file = cache / f"{blake3(os.fsencode(folder)).hexdigest()[:32]}.json"
        self._known: dict[str, tuple[FileState, int, str]] | None = None
        self._dirty = False

    def find(self, file: str, state: FileState) -> str | None:
        """Return the hash of a file in exactly this state, or None."""
        known, hashed_at, digest = self._load().get(file, (None, 0, ""))
        settled = max(state.modified, state.changed) + RACY_NS < hashed_at
        return digest if known == state and settled else None

    def remember(self, file: str, state: FileState, hashed_at: int, digest: str) -> None:
        """Note the hash of a file that was in `state` from `hashed_at` (ns) on."""
        self._load()[file] = (state, hashed_at, digest)
        self._dirty = True

    def save(self, present: dict[str, FileState]) -> None:
        """Write what is new; a cache that cannot be written only costs hashing again."""
        if not self._dirty:
            return
        rows = {file: row for file, row in self._load().items() if file in present}
        temporary = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"format": 1, "files": rows}))
            temporary.replace(self._file)
            self._dirty = False

    def _load(self) -> dict[str, tuple[FileState, int, str]]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                document = json.loads(self._file.read_bytes())
                if document["format"] == 1:
                    self._known = {
                        str(file): (FileState(*map(int, state)), int(hashed_at), str(digest))
                        for file, (state, hashed_at, digest) in document["files"].items()
                    }
        return self._known


def _state(found: os.stat_result) -> FileState:
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _refuse(location: str, look: FolderLook) -> None:
    """Refuse a folder with files that may not be read, or with dead links of weights and texts."""
    if look.refused:
        told = "; ".join(list(look.refused.values())[:20])
        raise ModelSourceError(
            f"model source {location} is refused: {told}. In a catalog that is `follow_links: true`"
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

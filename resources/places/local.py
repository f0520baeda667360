"""A place on a local (or network-mounted) file system: plain files, no library in between.

Whole-object writes go to a temporary file and appear by `link()` (fails when the name is taken) or
`rename()` (replaces), both atomic and with full content. `replace` compares and renames under one
`flock`, which dies with its process.
"""

import contextlib
import errno
import os
import resource
import stat
import uuid
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from resources.errors import UnsafeStoreError
from resources.locks import opened_lock, take_lock
from resources.places.local_faults import root_fault, translated
from resources.places.local_listing import DOCUMENT, folders_below, stat_of
from resources.places.place import LARGEST, TEMPORARY, Entry

LOCK_PATIENCE = 30.0  # seconds; a name is changed in milliseconds; see docs/timeouts.md
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalPlace:
    """Objects as files below `root`."""

    def __init__(self, root: Path) -> None:
        self.readers = 4  # of a machine's own folder one would do; it may be another machine's
        self.root, self.uri = root, root.as_uri()
        self._prefix = f"{root}/"  # joining paths costs as much as reading a small file

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the file's (first) bytes and their hash as the tag, or None."""
        try:
            with (
                translated(self.root, f"reading {key}"),
                FileIO(f"{self._prefix}{key}", opener=_opened) as file,
            ):
                small = os.fstat(file.fileno()).st_size <= LARGEST
                data = file.readall() if small else file.read(LARGEST) or b""
        except FileNotFoundError:
            if not os.path.islink(f"{self._prefix}{key}"):
                return None
            data = b""  # a link that leads nowhere
        return data, blake3(data).hexdigest()

    def put(self, key: str, data: bytes) -> None:
        """Write a file by rename, without waiting for the disk."""
        with translated(self.root, f"writing {key}"):
            path = self.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._temporary(data, durable=False), path)

    def create(self, key: str, data: bytes) -> bool:
        """Write a file by `link()`, which never replaces; durable when it returns."""
        with translated(self.root, f"creating {key}"):
            path = self.root / key
            self._make_folder(path.parent)
            temporary = self._temporary(data, durable=True)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise UnsafeStoreError(
                        f"artifact store {self.uri}: its file system has no hard links, so two "
                        f"writers could overwrite each other; use a local disk, NFS, or s3://"
                    ) from error
                raise
            finally:
                temporary.unlink()
            _sync_folder(path.parent)
            return True

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Replace a file if its bytes still have the hash `tag`."""
        with translated(self.root, f"replacing {key}"), self._locked():
            found = self.read(key)
            if found is None or found[1] != tag:
                return False
            path = self.root / key
            os.replace(self._temporary(data, durable=True), path)
            _sync_folder(path.parent)
            return True

    def walk(self, prefix: str) -> list[Entry]:
        """Return every file below `prefix`; files that vanish meanwhile are left out."""
        entries: list[Entry] = []
        with translated(self.root, f"listing {prefix}"):
            for folder, names in folders_below(str(self.root / prefix)):
                entries += self._entries(Path(folder), names)
        return sorted(entries, key=lambda entry: entry.key)

    def children(self, prefix: str) -> list[Entry]:
        """Return every file directly in `prefix`."""
        with translated(self.root, f"listing {prefix}"):
            folder = self.root / prefix
            names = os.listdir(folder) if folder.is_dir() else []
            return sorted(self._entries(folder, names), key=lambda entry: entry.key)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, and folders this empties below the first level."""
        parents: set[Path] = set()
        with translated(self.root, "deleting"):
            for key in keys:
                _remove(self.root / key)
                parents.add((self.root / key).parent)
        for parent in parents:
            _remove_empty(self.root, parent)

    def open_writer(self, key: str, size: int) -> "LocalWriter":
        """Start a file at its final name: below `attempts/` nothing is visible yet."""
        with translated(self.root, f"writing {key}"):
            return LocalWriter(self.root, self.root / key, size)

    def open_reader(self, key: str, tag: str = "") -> "LocalReader":
        """Open the file; FileNotFoundError when there is none. Listings here give no tags."""
        with translated(self.root, f"reading {key}"):
            try:
                return LocalReader(self.root, self.root / key)
            except OSError as error:
                if error.errno != errno.EMFILE or not _limit_raised():
                    raise
                return LocalReader(self.root, self.root / key)

    def pending(self, prefix: str) -> list[Entry]:
        """Return nothing: a file exists from its first byte."""
        return []

    def drop_pending(self, keys: Iterable[str]) -> None:
        """Do nothing."""

    def salvage(self, key: str) -> None:
        """Do nothing: what was written of a file can be read."""

    def settle(self, prefix: str) -> None:
        """Flush the folders below `prefix`, and the one that holds it, to the disk."""
        with translated(self.root, f"writing {prefix}"):
            top = self.root / prefix
            for folder, _, _ in os.walk(top, topdown=False):
                _sync_folder(Path(folder))
            _sync_folder(top.parent)

    def now(self) -> float:
        """Return the file system's own clock, which on a network mount is the server's."""
        with translated(self.root, "writing"):
            temporary = self._temporary(b"", durable=False)
            modified = temporary.stat().st_mtime
            temporary.unlink()
            return modified

    def folder(self, prefix: str) -> Path | None:
        """Return the folder itself."""
        return self.root / prefix

    def fault(self) -> str | None:
        """Return why the root is no folder."""
        with translated(self.root, "looking at it"):
            return root_fault(self.root)

    def secrets(self) -> tuple[str, ...]:
        """Return nothing: a file system needs no secret."""
        return ()

    def _entries(self, folder: Path, names: Iterable[str]) -> list[Entry]:
        entries: list[Entry] = []
        below = folder.relative_to(self.root).as_posix()
        before = "" if below == "." else f"{below}/"
        for name in names:
            found = stat_of(f"{folder}/{name}")
            if found is not None and stat.S_ISREG(found.st_mode):
                entries.append(Entry(f"{before}{name}", found.st_size, found.st_mtime))
            elif name.endswith(DOCUMENT) and os.path.lexists(f"{folder}/{name}"):
                entries.append(Entry(f"{before}{name}", 0, 0.0))  # no file: damage of that one
        return entries

    def _temporary(self, data: bytes, durable: bool) -> Path:
        folder = self.root / TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid.uuid4().hex
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        return path

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and flush every folder that gained one."""
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(missing):
            _sync_folder(path.parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.root / ".lock"
        with opened_lock(path) as lock:
            what = f"the artifact store {self.uri}, to change a name"
            take_lock(lock, path, what, patience=LOCK_PATIENCE)
            yield


class LocalWriter:
    """A file being written in order, flushed to the disk by `commit` and then read-only."""

    def __init__(self, root: Path, path: Path, size: int) -> None:
        self._root = root
        self._path = path
        self._size = size
        self._file = self._create()

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        with translated(self._root, f"writing {self._path.name} ({self._size} bytes)"):
            self._file.write(data)

    def commit(self) -> None:
        """Flush the file to the disk and close it."""
        with translated(self._root, f"writing {self._path.name} ({self._size} bytes)"):
            self._file.flush()
            with contextlib.suppress(OSError):  # some mounts have no permissions
                os.fchmod(self._file.fileno(), 0o444)
            os.fsync(self._file.fileno())
            self._file.close()

    def abandon(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        _remove_empty(self._root, self._path.parent)

    def _create(self) -> BinaryIO:
        """Create the file; again when another writer's `abandon` removed the folder meanwhile."""
        while True:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return self._path.open("xb")


class LocalReader:
    """Positioned reads on one open file."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._file = FileIO(path, opener=_opened)

    def read_into(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """Fill `buffer` by `preadv`; short only at the end of the file."""
        done = 0
        with translated(self._root, f"reading {self._path.name}"):
            while done < len(buffer):
                got = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
                if got == 0:
                    break
                done += got
        return done

    def state(self) -> object:
        """Return the open file's size and times."""
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def close(self) -> None:
        """Close the file. Works while the interpreter ends, when `os` is gone already."""
        self._file.close()


def _opened(path: str, flags: int) -> int:
    """Open a file; what is none (a pipe would never answer, a device never end) has no bytes."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket
            raise
        return os.open(os.devnull, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return os.open(os.devnull, flags)
    return descriptor


def _limit_raised() -> bool:
    """Raise this process's limit of open files as far as it may; False where it is there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


def _remove(path: Path) -> None:
    """Remove a file; an empty folder with the name of a document too."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if not path.name.endswith(DOCUMENT) or path.is_symlink() or not path.is_dir():
            raise
        path.rmdir()


def _remove_empty(root: Path, folder: Path) -> None:
    """Remove `folder` and those above it while they are empty, below the root's own folders."""
    with contextlib.suppress(OSError):
        while len(folder.relative_to(root).parts) > 1:
            folder.rmdir()
            folder = folder.parent


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Artifacts pulled to a local disk: bounded, by content digest, safe between processes.

What is there is compared with its hashes each time that it is asked for: a disk may have lost a bit
of it, or a person changed it. Damaged folders are pulled again.

    <root>/folders/<content digest>/   complete and checked; appears by rename
    <root>/pulling/<content digest>/   being pulled, by whoever holds the lock exclusively
    <root>/dropping/                   being evicted
    <root>/locks/<content digest>      shared while in use, exclusive while pulled or evicted;
                                       its time stamp is when the folder was last asked for

The locks are `flock`s, so they end with their process.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from resources.errors import DamagedArtifactError, StoreFailureError
from resources.reading.records import FileRecord, Progress
from resources.reading.sources import FileSource

DEFAULT_BYTES = 64 << 30
_PIECE = 8 << 20  # bytes read at once by one thread
_THREADS = 4


class Pullable(Protocol):
    """What can be pulled: an artifact, or a model that is made from one while it is read."""

    content_digest: str
    uri: str
    nbytes: int

    @property
    def files(self) -> Mapping[str, FileRecord]:
        """Return its files by path."""
        ...

    def source(self) -> FileSource:
        """Return random access to the files."""
        ...


class Pin:
    """A cached folder in use: it is not evicted while this object lives."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.release = weakref.finalize(self, os.close, lock)


class FolderCache:
    """A folder of pulled artifacts that stays near `most_bytes`.

    What is in use is never evicted, so the bound is passed when more than that is used at once.
    """

    def __init__(self, root: Path, most_bytes: int = DEFAULT_BYTES) -> None:
        self.root = root
        self.most_bytes = most_bytes

    def at(self, root: Path) -> "FolderCache":
        """Return a cache with the same bound elsewhere."""
        return FolderCache(root, self.most_bytes)

    def pull(
        self, artifact: Pullable, progress: Progress | None = None, held: Pin | None = None
    ) -> Pin:
        """Return the artifact's folder, pulled first unless it is here, and checked in any case.

        `held` is the caller's pin of the same folder, if it has one. When another process is
        pulling it, wait for that one. DamagedArtifactError is raised where a pulled file has other
        bytes than were published, or one that is here and in use; StoreFailureError where the local
        disk is full or not writable.
        """
        digest = artifact.content_digest
        folder = self.root / "folders" / digest
        with _disk_errors(self.root):
            for name in ("folders", "pulling", "dropping", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            while True:
                lock = self._lock(digest, fcntl.LOCK_SH)
                damaged = _damaged(folder, artifact) if folder.is_dir() else None
                if folder.is_dir() and damaged is None:
                    os.utime(lock)
                    return Pin(folder, lock)
                os.close(lock)
                if damaged is not None and held is not None:
                    held.release()
                if damaged is not None and not self._drop(folder) and folder.is_dir():
                    raise DamagedArtifactError(
                        f"{artifact.uri}: file {damaged!r} of its copy in {folder} is not as it "
                        f"was published, and another process uses it; end that one, and run again"
                    )
                lock = self._lock(digest, fcntl.LOCK_EX)
                try:
                    if not folder.is_dir():
                        os.utime(lock)
                        self._evict(artifact.nbytes)
                        self._fetch(artifact, folder, progress)
                finally:
                    os.close(lock)

    def _fetch(self, artifact: Pullable, folder: Path, progress: Progress | None) -> None:
        pulling = self.root / "pulling" / artifact.content_digest
        shutil.rmtree(pulling, ignore_errors=True)  # left by a process that was killed
        pulling.mkdir()
        try:
            with artifact.source() as source:
                _copy(artifact, source, pulling, progress)
            fault = wrong_file(pulling, artifact.files.values())
            if fault is not None:
                raise DamagedArtifactError(
                    f"{artifact.uri}: file {fault!r} arrived with other bytes than were "
                    f"published; check the store with verify, and the network"
                )
            for file in artifact.files:
                (pulling / file).chmod(0o444)
            pulling.rename(folder)
        except BaseException:
            shutil.rmtree(pulling, ignore_errors=True)
            raise

    def _evict(self, room: int) -> None:
        """Drop what was not asked for longest until `room` bytes fit; skip what is in use."""
        folders = [
            (self._last_asked(folder.name), folder, _folder_bytes(folder))
            for folder in (self.root / "folders").iterdir()
        ]
        total = room + sum(nbytes for _, _, nbytes in folders)
        for _, folder, nbytes in sorted(folders):
            if total <= self.most_bytes:
                break
            if self._drop(folder):
                total -= nbytes
        for left in (self.root / "dropping").iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def _drop(self, folder: Path) -> bool:
        try:
            lock = self._lock(folder.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            folder.rename(self.root / "dropping" / f"{folder.name}-{uuid.uuid4().hex}")
        except FileNotFoundError:
            return False  # another process dropped it
        finally:
            os.close(lock)
        return True

    def _lock(self, digest: str, operation: int) -> int:
        descriptor = os.open(
            self.root / "locks" / digest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _last_asked(self, digest: str) -> float:
        try:
            return (self.root / "locks" / digest).stat().st_mtime
        except FileNotFoundError:
            return time.time()


def _damaged(folder: Path, artifact: Pullable) -> str | None:
    """What is wrong with a folder of the cache: a file with other bytes, or one too many.

    Whoever loads a folder may look for files that the model does not have.
    """
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    extra = min(there - artifact.files.keys(), default=None)
    return extra or wrong_file(folder, artifact.files.values())


def wrong_file(folder: Path, files: Iterable[FileRecord]) -> str | None:
    """Return the first file in a folder that is missing or has other bytes, or None.

    Files are read, not mapped: a mapped file that is cut off meanwhile would end this process.
    """
    buffer = memoryview(bytearray(_PIECE))
    for file in files:
        hasher = blake3(max_threads=blake3.AUTO)
        try:
            with (folder / file.path).open("rb", buffering=0) as opened:
                while count := opened.readinto(buffer):
                    hasher.update(buffer[:count])
        except FileNotFoundError:
            return file.path
        if hasher.hexdigest() != file.blake3:
            return file.path
    return None


def _copy(artifact: Pullable, source: FileSource, folder: Path, progress: Progress | None) -> None:
    """Pull all files into `folder`, a few pieces at once."""
    lock = threading.Lock()
    buffers = threading.local()
    done = 0

    def pull(piece: tuple[str, int, int]) -> None:
        nonlocal done
        file, offset, size = piece
        if not hasattr(buffers, "view"):
            buffers.view = memoryview(bytearray(_PIECE))
        view = buffers.view[:size]
        source.read_into(file, offset, view)
        descriptor = descriptors[file]
        written = 0
        while written < size:
            written += os.pwrite(descriptor, view[written:], offset + written)
        with lock:
            done += size
            if progress:
                progress(done, artifact.nbytes)

    with contextlib.ExitStack() as stack:
        descriptors: dict[str, int] = {}
        for file in artifact.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            descriptors[file] = stack.enter_context((folder / file).open("xb")).fileno()
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS, "pull"))
        try:
            for _ in pool.map(pull, _pieces(artifact)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _pieces(artifact: Pullable) -> Iterator[tuple[str, int, int]]:
    for file in artifact.files.values():
        for offset in range(0, file.size, _PIECE):
            yield file.path, offset, min(_PIECE, file.size - offset)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, DamagedArtifactError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        todo = "free some space or give the cache a smaller bound" if full else "check the disk"
        raise StoreFailureError(
            f"the cache of pulled artifacts in {root} cannot be written: "
            f"{error.strerror or error}; {todo}, or put it elsewhere"
        ) from error

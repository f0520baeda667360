"""Where a checkpoint's bytes come from and go to: by (file, offset, length), and in order.

The format is the business of `checkpoint`; this module has the border to places, and local folders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

from merge_ops.checkpoints.files.folder_door import FolderDoor, FolderLook, RefusedFileError
from merge_ops.checkpoints.files.open_files import TOO_MANY, PooledFile
from merge_ops.checkpoints.files.opened_files import Checksums, FileState, HashedFile, OpenedFile
from merge_ops.errors import OutputError, UnreadableFileError


class ByteSource(Protocol):
    """A byte source holds the files of one checkpoint.

    Several threads may read from it at once.
    """

    @property
    def location(self) -> str:
        """Return the place that messages name."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes, by its relative POSIX path."""
        ...

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise OSError."""
        ...


class ByteWriter(Protocol):
    """A byte writer takes one file in order.

    When its block ends with an exception, it publishes nothing.
    """

    def write(self, data: memoryview | bytes) -> object:
        """Append bytes to the file."""
        ...

    def __enter__(self) -> ByteWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None: ...


class ByteSink(Protocol):
    """A byte sink takes the files of one checkpoint."""

    def open(self, file: str, size: int) -> ByteWriter:
        """Start the file `file` of exactly `size` bytes, and return its writer."""
        ...


FileFacts = tuple[int, int, int, int, int]
"""Size, times of the last write and change in nanoseconds, inode and device of a file."""


class FolderSource:
    """A folder source reads a local folder with `preadv`, from files that stay open.

    `only` hides all files but one. What may be read is the business of `folder_door`: links that
    leave the folder are followed for weights alone, or with `follow_links`. A source that
    `remembers` can `prove` later that all it ever read is what was hashed.
    """

    note = Checksums
    """What to take of each file's bytes when they are hashed, for `prove`."""

    def __init__(
        self,
        folder: Path,
        only: str | None = None,
        remembers: bool = False,
        follow_links: bool = False,
    ) -> None:
        self._folder = folder
        self._only = only
        self._door = FolderDoor(folder, follow_links)
        self._look: FolderLook | None = None
        self._remembers = remembers
        self._hashed: dict[str, HashedFile] = {}
        self._open: dict[str, OpenedFile] = {}

    @property
    def follow_links(self) -> bool:
        """Return whether links that leave the folder are followed."""
        return self._door.follow_links

    @property
    def path(self) -> Path:
        """Return the folder, or the one file of it that is shown."""
        return self._folder if self._only is None else self._folder / self._only

    @property
    def location(self) -> str:
        """Return the folder's path."""
        return str(self._folder)

    def sizes(self) -> Mapping[str, int]:
        """Return the sizes of all files below the folder that may be read, without hidden ones.

        An absent folder has no files. Raises UnreadableFileError where it cannot be looked at.
        """
        return {file: found.st_size for file, found in self._look_again().files.items()}

    def refused(self) -> Mapping[str, str]:
        """Return the files that may not be read, each with the reason, as the last look saw them.

        Raises UnreadableFileError where the folder cannot be looked at.
        """
        return (self._look or self._look_again()).refused

    def dead_links(self) -> Mapping[str, str]:
        """Return the links at the folder's top whose targets are gone, each with its target.

        They are those that the last look saw.
        """
        return {} if self._only is not None else (self._look or self._look_again()).dead

    def _look_again(self) -> FolderLook:
        try:
            self._look = self._door.look(self._only)
        except OSError as error:
            raise _unreadable(str(self._folder), error) from error
        return self._look

    def unfinished(self) -> tuple[str, ...]:
        """Return the hidden files that broken downloads from the Hub and ModelScope left."""
        if self._only is not None:
            return ()
        hub = self._folder / ".cache" / "huggingface" / "download"
        scope = self._folder / "._____temp"
        linked = any(map(os.path.islink, (hub, *hub.parents[:2], scope)))
        if linked or not os.path.isdir(self._folder):
            return ()
        places = [*hub.rglob("*.incomplete"), *(scope.iterdir() if scope.is_dir() else ())]
        return tuple(sorted(path.relative_to(self._folder).as_posix() for path in places))

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `file` from `offset`.

        Raises UnreadableFileError where it may not be read, OSError where the file ends before,
        ChangedInputError where it has other bytes than were hashed.
        """
        self._opened(file).read_into(offset, buffer)

    def look_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` as `read_into` does, unproven: for whoever reads the same bytes again.

        Small reads all over a file cost a quarter of a merge when each is proven.
        """
        self._opened(file).look_into(offset, buffer)

    def prove(self, hashed: Mapping[str, tuple[FileFacts, str]]) -> None:
        """Compare all reads of these files, past and to come, with what was hashed.

        `hashed` has what each file was (as `FileState` has it), and the text of its `note`. Raises
        ChangedInputError here, or where a file is read, when one has other bytes.
        """
        for file, (state, checksums) in hashed.items():
            self._hashed[file] = HashedFile(FileState(*state), checksums)
        for file, opened in list(self._open.items()):
            if file in hashed:
                opened.prove(self._hashed[file])

    def check_unchanged(self) -> None:
        """Raise ChangedInputError where a file that was read is not what it was any more."""
        for opened in list(self._open.values()):
            opened.check_unchanged()

    def _opened(self, file: str) -> OpenedFile:
        opened = self._open.get(file)
        if opened is None:
            path = self._folder / file
            pooled = PooledFile(str(path), lambda: self._through_the_door(file))
            fresh = OpenedFile(path, pooled, self._remembers)
            if file in self._hashed:
                fresh.prove(self._hashed[file])
            opened = self._open.setdefault(file, fresh)
            if opened is not fresh:  # another thread was first
                fresh.close()
        return opened

    def _through_the_door(self, file: str) -> int:
        try:
            return self._door.open(file)
        except OSError as error:
            if error.errno in TOO_MANY:
                raise  # of the pool, which closes another and tries again
            raise _unreadable(f"{self._folder}/{file}", error) from error

    def close(self) -> None:
        """Close the open files."""
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        self.close()


def _unreadable(place: str, error: OSError) -> UnreadableFileError:
    """The error for a file or folder; a file that was refused says its place itself."""
    if isinstance(error, RefusedFileError):
        return UnreadableFileError(str(error))
    return UnreadableFileError(f"{place} cannot be read ({error.strerror or error})")


class FolderSink:
    """A folder sink writes files into a local folder, in place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, file: str, size: int) -> ByteWriter:
        """Start the file `file` of exactly `size` bytes, and return its writer.

        Reserves all its blocks at once, so a full disk shows before any work. Raises OutputError
        where they cannot be reserved.
        """
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("wb", buffering=0)
        try:
            if size:
                os.posix_fallocate(handle.fileno(), 0, size)
        except OSError as error:
            handle.close()
            path.unlink()
            raise OutputError(
                f"{path}: {size} bytes cannot be reserved ({error.strerror}); free space or choose"
                " another output folder"
            ) from error
        return cast(ByteWriter, handle)


def read_file(source: ByteSource, file: str, offset: int, length: int) -> bytes:
    """Read `length` bytes of a file from `offset` and return them.

    It is meant for small ranges.
    """
    buffer = bytearray(length)
    source.read_into(file, offset, memoryview(buffer))
    return bytes(buffer)

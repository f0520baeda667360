"""Files of a model's folder, held open: what each was when it was opened, and proof of its bytes.

A folder belongs to somebody, who may save into it, move it, or lose a bit of it while it is read.
When its files were hashed (`HashedFile`), every later read is compared with that by checksums of
pieces, and what was read before is read again: so the bytes that were used are those that the
digest stands for. Without hashes there are the file's size, times and place on the disk alone.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import blake3

from merge_ops.checkpoints.files.open_files import PooledFile
from merge_ops.errors import ChangedInputError, UnreadableFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.kernels.checksums import CheckedPieces

RIGHT = -1  # of merge_ops.kernels.checksums, which imports numpy
PIECE = 16 << 10  # a read whose ends lie within pieces reads up to two of them more
_WAIT = "wait until whatever writes it is done, and run again. Nothing was written"


class FileState(NamedTuple):
    """A file state tells a file from a changed one without reading it.

    It holds the bytes, the times of the last write and change in nanoseconds, inode and device.
    """

    size: int
    modified: int
    changed: int
    inode: int
    device: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """Return the state that a `stat` or `fstat` found."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)

    def difference(self, later: FileState) -> str:
        """Say what `later` has otherwise, in words; empty where all is the same."""
        if (self.inode, self.device) != (later.inode, later.device):
            return "another file took its place"
        if self.size != later.size:
            return f"it had {self.size} bytes and has {later.size}"
        if self.modified != later.modified:
            return "it was written to"
        return "it was written to, or touched" if self.changed != later.changed else ""


class Checksums:
    """Checksums are those of the pieces of one file, taken while its bytes come in order.

    Raise `version` when they are made in another way, which those that are remembered are not.
    """

    version = f"checksums 2 of {PIECE} "

    def __init__(self) -> None:
        self._open = bytearray()
        self._sums = bytearray()

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        from merge_ops.kernels.checksums import checksums

        if self._open:
            missing = PIECE - len(self._open)
            self._open += data[:missing]
            data = data[missing:]
            if len(self._open) == PIECE:
                self._sums += checksums(memoryview(self._open), PIECE).tobytes()
                self._open.clear()
        whole = len(data) // PIECE * PIECE
        if whole:
            self._sums += checksums(data[:whole], PIECE).tobytes()
        self._open += data[whole:]

    def text(self) -> str:
        """Return the checksums of all pieces as text that `HashedFile` reads."""
        from merge_ops.kernels.checksums import checksums

        rest = checksums(memoryview(bytes(self._open)), PIECE).tobytes()
        return self.version + base64.b64encode(bytes(self._sums) + rest).decode()


class HashedFile(NamedTuple):
    """A hashed file is what it was when its digest was made: its state, its bytes' checksums.

    `checksums` is the text of `Checksums`.
    """

    state: FileState
    checksums: str

    def numbers(self) -> NDArray[np.uint64]:
        """Return the checksums, shape (pieces,). Raises ValueError where they are not this file's.

        Their order of bytes is this machine's: they are kept in a memory of its own.
        """
        import numpy as np

        try:
            raw = base64.b64decode(self.checksums.removeprefix(Checksums.version), validate=True)
        except binascii.Error as error:
            raise ValueError("these checksums are no base64") from error
        if len(raw) != 8 * -(-self.state.size // PIECE):
            raise ValueError("these are the checksums of another file")
        return np.frombuffer(raw, dtype=np.uint64)


class OpenedFile:
    """An opened file of a folder; thread-safe. `state` is that of the very file that is open.

    With `remembers` it keeps a hash of each read, so that `prove` can go back over it.
    """

    def __init__(self, path: Path, handle: PooledFile, remembers: bool = False) -> None:
        self._path = path
        self._handle = handle
        self.state = FileState.of(handle.stat())
        self._reads: list[tuple[int, int, bytes]] | None = [] if remembers else None
        self._pieces: CheckedPieces | None = None
        self._hashed = self.state

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`.

        Raises UnreadableFileError where the file ends before, ChangedInputError where it has other
        bytes than were hashed.
        """
        if self._pieces is not None:
            self._read_proven(offset, buffer)
            return
        self._fill(offset, buffer)
        if self._reads is not None:
            self._reads.append((offset, len(buffer), blake3.blake3(buffer).digest()))

    def look_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`, which nothing may be made of."""
        self._fill(offset, buffer)

    def prove(self, hashed: HashedFile) -> None:
        """Compare every read from now on, and all reads until now, with what was hashed.

        Raises ChangedInputError where they differ.
        """
        if hashed.state.size != self.state.size:
            raise self._changed(hashed.state.difference(self.state))
        from merge_ops.kernels.checksums import CheckedPieces

        self._pieces = CheckedPieces(self.state.size, PIECE, hashed.numbers())
        self._hashed = hashed.state
        reads, self._reads = self._reads or [], None
        for offset, length, digest in dict.fromkeys(reads):
            again = memoryview(bytearray(length))
            self._read_proven(offset, again)
            if blake3.blake3(again).digest() != digest:
                raise self._changed("its bytes are not those of a moment ago")

    def check_unchanged(self) -> None:
        """Raise ChangedInputError where the file, or what has its name now, is not what was read.

        A file that was only touched, or is there again with the same bytes, is read again.
        """
        found = self._difference()
        if not found:
            return
        if self._pieces is None:
            raise self._changed(found)
        try:
            path = str(self._path)
            pooled = PooledFile(path, lambda: _open_regular(path))
            with closing(OpenedFile(self._path, pooled)) as again:
                if again.state.size != self.state.size:
                    raise self._changed(found)
                again._pieces = self._pieces
                buffer = memoryview(bytearray(min(64 * PIECE, max(1, self.state.size))))
                for start in range(0, self.state.size, len(buffer)):
                    again.read_into(start, buffer[: min(len(buffer), self.state.size - start)])
        except (OSError, ChangedInputError):
            raise self._changed(found) from None

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            with self._same_file():
                count = self._handle.preadv(buffer[done:], offset + done)
            if count == 0:
                if self._handle.stat().st_size != self.state.size:
                    raise self._changed(self._difference())
                raise _too_short(self._path, offset + done)
            done += count

    @contextmanager
    def _same_file(self) -> Generator[None]:
        """Say that a file changed which was closed for others, and is not what it was."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise self._changed("it was closed for a moment, and is another file now") from None
            raise

    def _read_proven(self, offset: int, buffer: memoryview) -> None:
        """Whole pieces are read where they are wanted; of those at the ends a part is copied."""
        size = self.state.size
        if offset < 0 or offset + len(buffer) > size:
            raise _too_short(self._path, size)
        if not len(buffer):
            return
        pieces = cast("CheckedPieces", self._pieces)
        with self._same_file(), self._handle.lent() as descriptor:
            wrong = pieces.read(descriptor, offset, buffer)
        if wrong >= 0:
            raise self._wrong(wrong)
        if wrong != RIGHT:
            self._fill(offset, buffer)  # which says why
            raise self._changed(self._difference() or "a part of it could not be read")

    def _difference(self) -> str:
        """How the open file, or the one of its name, differs from what was opened; empty if not."""
        try:
            now = [os.stat(self._path), self._handle.stat()]
        except FileNotFoundError:
            return "it is gone"
        except OSError as error:
            return f"it cannot be looked at any more: {error.strerror or error}"
        told = (self.state.difference(FileState.of(each)) for each in now)
        return next(filter(None, told), "")

    def _wrong(self, start: int) -> ChangedInputError:
        found = self._hashed.difference(self.state) or self._difference()
        if found:
            return self._changed(found)
        stop = min(self.state.size, start + PIECE)
        return ChangedInputError(
            f"{self._path}: bytes {start} to {stop - 1} are not those that were hashed, though its"
            " size and times are the same: the disk or the memory has damaged it. Restore it from"
            " where it came from; if it is right as it is, `touch` it to have it hashed anew."
            " Nothing was written"
        )

    def _changed(self, what: str) -> ChangedInputError:
        return ChangedInputError(f"{self._path} changed while it was read ({what}); {_WAIT}")


def _too_short(path: Path, size: int) -> UnreadableFileError:
    """Of a file that was written anew, and shorter, between the listing of its folder and now."""
    return UnreadableFileError(f"{path} ends at byte {size}, before what is read of it; {_WAIT}")


def _open_regular(path: str) -> int:
    """Open what has a file's name now, which may be anything: a pipe would never answer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no regular file")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

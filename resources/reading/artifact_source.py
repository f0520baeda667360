"""Bytes of a published artifact by (file, offset): what a merge reads from.

Every piece is checked against the artifact's tree of digests before its bytes are handed out
(`digest_tree`), wherever it comes from: disks lose bits as networks do. On a local file system that
is done once for each piece and source, and again where the file was written to meanwhile. Artifacts
of older releases have no tree: a larger file of theirs is read once to make one.
"""

import os
import threading

from resources.errors import ArtifactReadError, DamagedArtifactError, StoreError
from resources.places import Place
from resources.reading.checked_file import CheckedFile, ShortFileError
from resources.reading.read_ahead import ReadAhead
from resources.reading.sources import Published

_FAR_TRIES = 6
_NEAR_TRIES = 2

_shared: dict[int, ReadAhead] = {}  # by process: threads do not survive a fork
_sharing = threading.Lock()


class ArtifactSource:
    """Random access to an artifact's files; thread-safe. Files stay open until `close`."""

    def __init__(self, artifact: Published, place: Place) -> None:
        self.location = artifact.uri
        self._artifact = artifact
        self._place = place
        self._ahead = read_ahead() if place.folder("") is None else None
        self._open: dict[str, CheckedFile] = {}
        self._lock = threading.Lock()

    def sizes(self) -> dict[str, int]:
        """Return every file's path and size in bytes."""
        return {file.path: file.size for file in self._artifact.files.values()}

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly.

        ArtifactReadError (an OSError, a DamagedArtifactError) is raised where the range is not in
        the file, could not be read, or has other bytes than were published.
        """
        data = buffer.cast("B")
        where = f"{self.location}: file {file!r}, bytes {offset} to {offset + len(data)}"
        try:
            self._artifact.key(file)
            size = self._artifact.files[file].size
            if offset < 0 or offset + len(data) > size:
                raise ArtifactReadError(f"{where}: the file has {size} bytes")
            if len(data):
                self._read(file, offset, data)
        except ArtifactReadError:
            raise
        except ShortFileError as error:
            there = max(0, min(len(data), error.end - offset))
            raise ArtifactReadError(
                f"{where}: only {there} of {len(data)} bytes are there"
            ) from None
        except DamagedArtifactError as error:
            raise ArtifactReadError(str(error)) from None
        except (StoreError, OSError) as error:
            raise ArtifactReadError(f"{where}: {error}") from error

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        with self._lock:
            opened, self._open = self._open, {}
        for checked in opened.values():
            if self._ahead is not None:
                self._ahead.forget(checked)
            checked.close()

    def __enter__(self) -> "ArtifactSource":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:  # noqa: SIM105 - `contextlib` may be gone as well
            self.close()
        except (AttributeError, TypeError):
            pass  # Python takes its modules apart, and what is open ends with the process

    def _read(self, file: str, offset: int, data: memoryview) -> None:
        checked = self._opened(file)
        if self._ahead is None:
            checked.read_near(offset, data)
        else:
            self._ahead.read(checked, offset, data)

    def _opened(self, file: str) -> CheckedFile:
        with self._lock:
            if file not in self._open:
                self._open[file] = self._start(file)
            return self._open[file]

    def _start(self, file: str) -> CheckedFile:
        piece, digests = self._artifact.piece_digests(file)
        reader = self._place.open_reader(self._artifact.key(file))
        where = f"{self.location}: file {file!r}"
        size = self._artifact.files[file].size
        tries = _NEAR_TRIES if self._ahead is None else _FAR_TRIES
        return CheckedFile(reader, where, size, piece, digests, tries)


def read_ahead() -> ReadAhead:
    """Return this process's own, which all sources of far artifacts share."""
    with _sharing:
        if os.getpid() not in _shared:
            _shared.clear()
            _shared[os.getpid()] = ReadAhead()
        return _shared[os.getpid()]

"""A place: the few operations a store needs from a file system or a bucket.

Keys are relative POSIX paths. A place knows nothing of attempts, manifests or refs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PROBE, TEMPORARY = "probe", "tmp"
"""Folders that places themselves write small things to, for a moment; gc sweeps them."""
LARGEST = 256 << 20
"""Bytes that are read of an object at once. What a store writes to be read whole is far smaller, so
the first bytes of a larger one are no document of a store, and have no hash that was published."""


@dataclass(frozen=True)
class Entry:
    """One object of a listing: key, size in bytes, last change in seconds by the place's clock.

    `tag` tells this version of it from others, where the place keeps such a thing.
    """

    key: str
    size: int
    modified: float
    tag: str = ""


class PlaceWriter(Protocol):
    """One object being written in order; it does not exist until `commit` returns."""

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        ...

    def commit(self) -> None:
        """Make the object exist, durably."""
        ...

    def abandon(self) -> None:
        """Leave nothing behind; never raises."""
        ...


class PlaceReader(Protocol):
    """Random access to one object; thread-safe."""

    def read_into(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """Fill `buffer` from byte `offset`; return the bytes read, fewer only at the end.

        The next `ahead` bytes will probably be asked for: a far place may have them sent already.
        """
        ...

    def state(self) -> object:
        """Return what changes when the open object is written to; the same where nobody can."""
        ...

    def close(self) -> None:
        """Give back what the reader holds."""
        ...


class Place(Protocol):
    """What the store is built on. Every method raises a `StoreError` when the place fails."""

    uri: str
    readers: int
    """How many threads hide the way to small objects; more only wait for one another."""

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and the tag `replace` wants, or None when there is none.

        Of an object of more than `LARGEST` bytes those first ones are returned.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whatever is there. For markers: not durable over a power failure."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write a whole object if none is there, atomically and durably; False when one is."""
        ...

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Write an object if the one there still has `tag`; False when it has not."""
        ...

    def walk(self, prefix: str) -> list[Entry]:
        """Return every object below the folder `prefix`, sorted by key."""
        ...

    def children(self, prefix: str) -> list[Entry]:
        """Return every object directly in the folder `prefix`, sorted by key."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        ...

    def open_writer(self, key: str, size: int) -> PlaceWriter:
        """Start writing an object of `size` bytes."""
        ...

    def open_reader(self, key: str, tag: str = "") -> PlaceReader:
        """Open an object for reading; FileNotFoundError may come now or at the first read.

        With the `tag` of a listing only that version is read; else ObjectChangedError is raised.
        """
        ...

    def pending(self, prefix: str) -> list[Entry]:
        """Return every object below `prefix` that was begun and does not exist yet.

        `modified` is when it was begun, `size` the bytes it holds. Not every place keeps such.
        """
        ...

    def drop_pending(self, keys: Iterable[str]) -> None:
        """Remove what `pending` listed."""
        ...

    def salvage(self, key: str) -> None:
        """Make readable what was written of an object whose writer is gone; it may be nothing."""
        ...

    def settle(self, prefix: str) -> None:
        """Make the objects committed below `prefix` survive a power failure."""
        ...

    def now(self) -> float:
        """Return the seconds since 1970 by the clock that stamps `Entry.modified`."""
        ...

    def folder(self, prefix: str) -> Path | None:
        """Return the local folder that holds `prefix`, or None when the place is not local."""
        ...

    def fault(self) -> str | None:
        """Return why nothing can lie here yet, as a local root that is no folder; None else."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """Secrets in use here, so that nothing written may hold one."""
        ...

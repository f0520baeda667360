"""A folder of a bucket that models come from: its objects are read as they were listed.

Of each object the version is read whose tag the listing gave. What is copied is compared with the
tag where that looks like an MD5.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from resources.errors import (
    MissingSourceError,
    ModelSourceError,
    ObjectChangedError,
    SourceChangedError,
    StoreAddressError,
    StoreError,
)
from resources.places import Entry
from resources.reading import Progress
from resources.upstream.source import FileSink, check_plain

_SCHEME = "s3"
_PIECE = 16 << 20  # bytes in memory at once, fetched by two requests at the same time
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class BucketFolder:
    """A bucket's folder, named s3://bucket/prefix; credentials come from the AWS chain.

    Everything raises ModelSourceError: MissingSourceError where nothing is there,
    SourceChangedError where an object is not the one any more that was listed.
    """

    def __init__(self, uri: str) -> None:
        path = uri.removeprefix(f"{_SCHEME}://").strip("/")
        check_plain(_SCHEME, path)
        from resources.places.s3.bucket import MODEL_SOURCE  # botocore, which few need
        from resources.places.s3.place import S3Place

        bucket, _, prefix = path.partition("/")
        self.location = f"{_SCHEME}://{path}"
        self._place = S3Place(bucket, prefix, MODEL_SOURCE)

    def above(self) -> "BucketFolder | None":
        """Return the folder that this one lies in; None at the top of the bucket."""
        bucket = self.location.removeprefix(f"{_SCHEME}://")
        return BucketFolder(self.location.rpartition("/")[0]) if "/" in bucket else None

    def children(self, folder: str = "") -> list[Entry]:
        """Return the objects directly in the folder, or in one of its folders; sorted by key."""
        with self._translated():
            return self._place.children(folder)

    def walk(self) -> list[Entry]:
        """Return every object below the folder, sorted by key."""
        with self._translated():
            return self._place.walk("")

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        """Return a range of an object; short at its end."""
        buffer = memoryview(bytearray(length))
        reader = self._place.open_reader(entry.key, entry.tag)
        with contextlib.closing(reader), self._translated(entry.key):
            return bytes(buffer[: reader.read_into(offset, buffer)])

    def pieces(self, entry: Entry, start: int = 0) -> Iterator[memoryview]:
        """Yield an object's bytes from `start` on; each piece is valid until the next."""
        buffer = memoryview(bytearray(min(_PIECE, max(1, entry.size))))
        reader = self._place.open_reader(entry.key, entry.tag)
        with contextlib.closing(reader):
            for offset in range(start, entry.size, len(buffer)):
                piece = buffer[: min(len(buffer), entry.size - offset)]
                with self._translated(entry.key):
                    got = reader.read_into(offset, piece)
                if got != len(piece):
                    missing = entry.size - offset - got
                    raise ModelSourceError(
                        f"model source {self.location}: {entry.key} ended {missing} bytes too early"
                    )
                yield piece

    def copy(
        self, entries: Mapping[str, Entry], sink: FileSink, progress: Progress | None = None
    ) -> None:
        """Copy objects into `sink`, by their keys, each checked."""
        total, done = sum(entry.size for entry in entries.values()), 0
        for entry in entries.values():
            hasher = hashlib.md5(usedforsecurity=False)
            with sink.open(entry.key, entry.size) as writer:
                for piece in self.pieces(entry):
                    writer.write(piece)
                    hasher.update(piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)
                self._check(entry, hasher.hexdigest())

    def check_copy(self, entry: Entry, copy: Path) -> None:
        """Compare a local file with the object that it is a copy of."""
        with copy.open("rb") as opened:
            md5 = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False))
        self._check(entry, md5.hexdigest())

    def _check(self, entry: Entry, md5: str) -> None:
        """Compare what came with the ETag where that looks like an MD5.

        Some servers give other tags of the same form. So a file that differs is read once more:
        what a network spoils does not come wrong twice in the same way.
        """
        said = _MD5.fullmatch(entry.tag)
        if said is None or said[1] == md5:
            return
        again = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces(entry):
            again.update(piece)
        if again.hexdigest() != md5:
            raise ModelSourceError(
                f"model source {self.location}: {entry.key} arrived with other bytes than are"
                " there; check the network, and run again"
            )

    @contextlib.contextmanager
    def _translated(self, file: str = "") -> Iterator[None]:
        """Turn the place's errors into those of a model source."""
        try:
            yield
        except (FileNotFoundError, StoreAddressError):
            raise MissingSourceError(
                f"model source {self.location} is not there; correct it in the catalog"
            ) from None
        except ObjectChangedError:
            raise SourceChangedError(
                f"model source {self.location}: {file} changed since its revision was taken; run "
                f"again"
            ) from None
        except StoreError as error:
            raise ModelSourceError(str(error)) from None

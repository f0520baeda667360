"""A model below a prefix of an S3 bucket, read as the artifact store's objects are."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from resources.errors import (
    MissingSourceError,
    ModelSourceError,
    ObjectChangedError,
    SourceChangedError,
    StoreAddressError,
    StoreError,
)
from resources.places import Entry
from resources.places.s3.bucket import MODEL_SOURCE
from resources.places.s3.place import S3Place
from resources.reading import Progress
from resources.upstream.local_copies import SOURCES_VARIABLE, LocalCopies, copies_folder
from resources.upstream.source import MODULES_FILE, TEMPLATE_FOLDER, FileSink, wanted_files

_PIECE = 16 << 20  # bytes in memory at once, fetched by two requests at the same time
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class S3Model:
    """A Hugging Face style folder in a bucket; credentials come from the standard AWS chain."""

    needs: str | None = "botocore"
    variable: str = SOURCES_VARIABLE

    def __init__(self, path: str) -> None:
        bucket, _, prefix = path.strip("/").partition("/")
        self.location = f"s3://{path.strip('/')}"
        self._place = S3Place(bucket, prefix, MODEL_SOURCE)
        self._pinned: dict[str, Entry] | None = None
        self._copies = LocalCopies(copies_folder("s3", path.strip("/")), self.location)

    @property
    def home(self) -> str:
        """Return the address that it is downloaded from."""
        return self.location

    @property
    def kept_in(self) -> Path:
        """Return the folder that a download goes to."""
        return self._copies.root

    def revision(self, progress: Progress | None = None) -> str:
        """Return the blake3 of the files' paths, sizes and ETags; nothing is downloaded."""
        self._pinned = self._list()
        return self._digest()

    def revisions(self) -> list[str] | None:
        """Return None: they are not listed."""

    def resolved(self) -> str:
        """Return the model's URI: a bucket has no commits that one could name."""
        return self.location

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the files that make up the model."""
        return {file: entry.size for file, entry in self._entries().items()}

    def cached(self) -> Path | None:
        """Return the folder of a copy that was kept before, of what the bucket holds now."""
        return self._copies.find(self._digest())

    def doubt(self, folder: Path) -> None:
        """Return None: a copy appears when all of it is there."""

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download what is missing; returns the folder that the copy is kept in."""
        sizes = self.sizes()
        return self._copies.keep(self._digest(), sizes, self._pieces, self._check_copy, progress)

    def read(self, file: str, offset: int, length: int) -> bytes:
        """Return a range of a file, of the version that was listed; short at its end."""
        buffer = memoryview(bytearray(length))
        reader = self._place.open_reader(file, self._entries()[file].tag)
        with contextlib.closing(reader), self._translated(file):
            return bytes(buffer[: reader.read_into(offset, buffer)])

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files; SourceChangedError when one has not the ETag that was listed."""
        files = self._entries()
        total, done = sum(entry.size for entry in files.values()), 0
        for file, entry in files.items():
            hasher = hashlib.md5(usedforsecurity=False)
            with sink.open(file, entry.size) as writer:
                for piece in self._read(file, entry):
                    writer.write(piece)
                    hasher.update(piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)
                self._check(file, entry, hasher.hexdigest())

    def _entries(self) -> dict[str, Entry]:
        if self._pinned is None:
            self._pinned = self._list()
        return self._pinned

    def _digest(self) -> str:
        entries = sorted(self._entries().items())
        lines = [[file, entry.size, entry.tag] for file, entry in entries]
        return blake3(json.dumps(lines).encode()).hexdigest()

    def _pieces(self, file: str, start: int) -> Iterator[memoryview]:
        return self._read(file, self._entries()[file], start)

    def _check_copy(self, file: str, copy: Path) -> None:
        with copy.open("rb") as opened:
            md5 = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False))
        self._check(file, self._entries()[file], md5.hexdigest())

    def _list(self) -> dict[str, Entry]:
        """The model's files, from the folder itself and from that of its templates."""
        with self._translated():
            listed = [*self._place.children(""), *self._place.children(TEMPLATE_FOLDER)]
            if any(entry.key == MODULES_FILE for entry in listed):
                listed += self._place.walk("")
        entries = {entry.key: entry for entry in listed}
        if not entries:
            raise MissingSourceError(
                f"model source {self.location} holds no file, or is not there; correct it in the "
                f"catalog"
            )
        return {file: entries[file] for file in wanted_files(entries, self.location)}

    def _read(self, file: str, entry: Entry, start: int = 0) -> Iterator[memoryview]:
        """The object's bytes in pieces, all of them from the version that was listed."""
        buffer = memoryview(bytearray(min(_PIECE, max(1, entry.size))))
        reader = self._place.open_reader(file, entry.tag)
        with contextlib.closing(reader):
            for offset in range(start, entry.size, len(buffer)):
                piece = buffer[: min(len(buffer), entry.size - offset)]
                with self._translated(file):
                    got = reader.read_into(offset, piece)
                if got != len(piece):
                    missing = entry.size - offset - got
                    raise ModelSourceError(
                        f"model source {self.location}: {file} ended {missing} bytes too early"
                    )
                yield piece

    def _check(self, file: str, entry: Entry, md5: str) -> None:
        """Compare what came with the ETag where that looks like an MD5.

        Some servers give other tags of the same form. So a file that differs is read once more:
        what a network spoils does not come wrong twice in the same way.
        """
        said = _MD5.fullmatch(entry.tag)
        if said is None or said[1] == md5:
            return
        again = hashlib.md5(usedforsecurity=False)
        for piece in self._read(file, entry):
            again.update(piece)
        if again.hexdigest() != md5:
            raise ModelSourceError(
                f"model source {self.location}: {file} arrived with other bytes than are there; "
                f"check the network, and run again"
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

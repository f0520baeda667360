"""A model below a prefix of an S3 bucket, read as the artifact store's objects are."""

import json
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from resources.errors import MissingSourceError
from resources.places import Entry
from resources.reading import Progress
from resources.upstream.bucket_folder import BucketFolder
from resources.upstream.local_copies import SOURCES_VARIABLE, LocalCopies, copies_folder
from resources.upstream.source import MODULES_FILE, TEMPLATE_FOLDER, FileSink, wanted_files


class S3Model:
    """A Hugging Face style folder in a bucket; credentials come from the standard AWS chain."""

    needs: str | None = "botocore"
    variable: str = SOURCES_VARIABLE

    def __init__(self, path: str) -> None:
        self._folder = BucketFolder(f"s3://{path}")
        self.location = self._folder.location
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
        return self._folder.read(self._entries()[file], offset, length)

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files; SourceChangedError when one has not the ETag that was listed."""
        self._folder.copy(self._entries(), sink, progress)

    def _entries(self) -> dict[str, Entry]:
        if self._pinned is None:
            self._pinned = self._list()
        return self._pinned

    def _digest(self) -> str:
        entries = sorted(self._entries().items())
        lines = [[file, entry.size, entry.tag] for file, entry in entries]
        return blake3(json.dumps(lines).encode()).hexdigest()

    def _pieces(self, file: str, start: int) -> Iterator[memoryview]:
        return self._folder.pieces(self._entries()[file], start)

    def _check_copy(self, file: str, copy: Path) -> None:
        self._folder.check_copy(self._entries()[file], copy)

    def _list(self) -> dict[str, Entry]:
        """The model's files, from the folder itself and from that of its templates."""
        listed = [*self._folder.children(), *self._folder.children(TEMPLATE_FOLDER)]
        if any(entry.key == MODULES_FILE for entry in listed):
            listed += self._folder.walk()
        entries = {entry.key: entry for entry in listed}
        if not entries:
            raise MissingSourceError(
                f"model source {self.location} holds no file, or is not there; correct it in the "
                f"catalog"
            )
        return {file: entries[file] for file in wanted_files(entries, self.location)}

"""A model below a prefix of an S3 bucket, read as the artifact store's objects are."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator

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
from resources.upstream.source import MODULES_FILE, TEMPLATE_FOLDER, FileSink, wanted_files

_PIECE = 16 << 20  # bytes in memory at once, fetched by two requests at the same time
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class S3Model:
    """A Hugging Face style folder in a bucket; credentials come from the standard AWS chain."""

    def __init__(self, path: str) -> None:
        bucket, _, prefix = path.strip("/").partition("/")
        self.location = f"s3://{path.strip('/')}"
        self._place = S3Place(bucket, prefix, MODEL_SOURCE)
        self._pinned: dict[str, Entry] | None = None

    def revision(self, progress: Progress | None = None) -> str:
        """Return the blake3 of the files' paths, sizes and ETags; nothing is downloaded."""
        self._pinned = self._list()
        lines = [[file, entry.size, entry.tag] for file, entry in sorted(self._pinned.items())]
        return blake3(json.dumps(lines).encode()).hexdigest()

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files; SourceChangedError when one has not the ETag that was listed."""
        files = self._list() if self._pinned is None else self._pinned
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

    def _read(self, file: str, entry: Entry) -> Iterator[memoryview]:
        """The object's bytes in pieces, all of them from the version that was listed."""
        buffer = memoryview(bytearray(min(_PIECE, max(1, entry.size))))
        reader = self._place.open_reader(file, entry.tag)
        with contextlib.closing(reader):
            for offset in range(0, entry.size, len(buffer)):
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

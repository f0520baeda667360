"""Digests of models on this machine, and proof that what is read of them is what they stand for.

A command opens its models, finds what is wrong with their headers, and only then hashes them. From
there on each read is compared with what was hashed, and so is each one before; at the end the files
must still be what they were. So the digests on a card are those of the bytes that went in.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import blake3

from merge_ops.checkpoints import ByteSource, Checkpoint, FolderSource
from merge_ops.checkpoints.pickles.pickled_weights import PickledFiles
from merge_ops.errors import ChangedInputError
from orchestration.commands.models.far_files import FarFiles

_RUN = 2 << 20  # see resources/upstream/folder_source.py
HASHED = FolderSource | FarFiles | PickledFiles
"""Where models of this machine are read from."""
FileFacts = tuple[int, int, int, int, int]
"""Size, times of the last write and change in nanoseconds, inode and device of a file."""


@dataclass(frozen=True)
class HashedModel:
    """A hashed model is the digest of a folder or a file, with each file's state and checksums."""

    digest: str
    files: Mapping[str, tuple[FileFacts, str]]


def places_of(model: Checkpoint) -> Iterator[tuple[ByteSource, Path]]:
    """The places that a model opened here is read from, each with the folder or file it is."""
    for part in model.made_of:
        yield from places_of(part)
    if isinstance(model.source, HASHED) and model.source.path is not None:
        yield model.source, model.source.path


def prove_models(models: Iterable[Checkpoint]) -> dict[ByteSource, str]:
    """Hash the models and return the digest of each place that they are read from.

    Every read of them, past and to come, is compared with what was hashed. Raises ChangedInputError
    where one gave other bytes.
    """
    places = {place: path for model in models for place, path in places_of(model)}
    with ThreadPoolExecutor(2) as pool:
        linked = {path: links_followed(place) for place, path in places.items()}
        pending = {path: pool.submit(hash_model, path, linked[path]) for path in sorted(linked)}
        hashed = {path: each.result() for path, each in pending.items()}
    for place, path in places.items():
        assert isinstance(place, HASHED)  # places_of gives no other
        place.prove(hashed[path].files)
    return {place: hashed[path].digest for place, path in places.items()}


def check_unchanged(places: Iterable[ByteSource]) -> None:
    """Raise ChangedInputError where a file that was read of a place is not what it was any more."""
    for place in places:
        if isinstance(place, HASHED):  # an earlier step's result is our own
            place.check_unchanged()


def content_digest(folder: Path) -> str:
    """BLAKE3 of a folder's content, or of a file's."""
    return hash_model(folder).digest


def links_followed(place: ByteSource) -> bool:
    """Tell whether links may lead out of the folder that a place is."""
    return isinstance(place, FolderSource) and place.follow_links


def hash_model(path: Path, follow_links: bool = False) -> HashedModel:
    """Hash a folder's files, or one file. Unchanged ones of a folder are remembered."""
    if path.is_file():
        return _hash_file(path)
    from resources.reading import FileRecord
    from resources.reading import content_digest as digest_of_files
    from resources.upstream import FolderModel

    model = FolderModel(path.absolute(), note=FolderSource.note, follow_links=follow_links)
    hashed = model.hashes()
    records = [FileRecord(file, each.state.size, each.blake3) for file, each in hashed.items()]
    files = {file: (each.state, each.note) for file, each in hashed.items()}
    return HashedModel(digest_of_files(records), files)


def _hash_file(path: Path) -> HashedModel:
    """Read, not mapped into memory: a mapped file that is cut off would end this process."""
    hasher, sums, size = blake3.blake3(max_threads=blake3.blake3.AUTO), FolderSource.note(), 0
    buffer = memoryview(bytearray(_RUN))
    with path.open("rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            sums.update(buffer[:count])
            size += count
    if size != found.st_size:
        raise ChangedInputError(
            f"{path} changed while it was hashed; wait until whatever writes it is done, and run"
            " again"
        )
    times = found.st_mtime_ns, found.st_ctime_ns
    state = (size, *times, found.st_ino, found.st_dev)
    return HashedModel(hasher.hexdigest(), {path.name: (state, sums.text())})

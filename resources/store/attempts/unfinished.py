"""What killed attempts left: files begun, of which the attempt's journal tells what is whole.

Whoever reads one claims it first, against gc and against a publisher that was only slow. The claim
gives way to nobody for an hour (see store_gc); the attempt itself is left to gc in the end.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from resources.errors import StoreError, UnfinishedReadError
from resources.places import Place, PlaceReader
from resources.store.attempts.owners import is_gone, this_process
from resources.store.names import ATTEMPTS, CLAIM_SUFFIX, MARKER_SUFFIX, file_fault, parsed_note

_PIECE = 8 << 20

Marks = list[tuple[int, str]]  # (bytes, blake3 of the first so many), ascending


class Unfinished:
    """The files of one dead attempt; `check` tells how much of each is good. Reads as a source."""

    def __init__(self, place: Place, attempt: str, files: Mapping[str, Marks]) -> None:
        self.attempt = attempt
        self.location = f"{place.uri}/{ATTEMPTS}/{attempt}"
        self.failed = False  # a read went wrong: what hangs on it is to be done without
        self._place = place
        self._marks = files
        self._good: dict[str, int] = {}
        self._readers: dict[str, PlaceReader] = {}

    @property
    def journaled(self) -> int:
        """Return the bytes that were written, as the journal says."""
        return sum(marks[-1][0] for marks in self._marks.values() if marks)

    @property
    def checked(self) -> int:
        """Return the bytes that `check` found good."""
        return sum(self._good.values())

    def check(self, ends: Mapping[str, Sequence[int]]) -> dict[str, dict[int, str]]:
        """Read the files and compare them with the journal, as far as they are there.

        `ends` are, for each file, the ascending offsets that the caller wants to know of. Return
        for each file those of them up to which all bytes are good, with their blake3.
        """
        sizes = self._sizes()
        digests: dict[str, dict[int, str]] = {}
        for file, marks in self._marks.items():
            reached = [mark for mark in marks if mark[0] <= sizes.get(file, 0)]
            if file in ends and reached:
                self._good[file], digests[file] = self._checked(file, reached, ends[file])
        return digests

    def sizes(self) -> Mapping[str, int]:
        """Return every file's good bytes."""
        return self._good

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, within the good bytes; UnfinishedReadError (an OSError)."""
        where = f"{self.location}/{file}, bytes {offset} to {offset + len(buffer)}"
        try:
            got = self._reader(file).read_into(offset, buffer) if len(buffer) else 0
        except (StoreError, OSError) as error:
            self.failed = True
            raise UnfinishedReadError(f"{where}: {error}") from error
        if got != len(buffer):
            self.failed = True
            raise UnfinishedReadError(f"{where}: only {got} bytes are there")

    def close(self) -> None:
        """Close the files."""
        while self._readers:
            self._readers.popitem()[1].close()

    def release(self) -> None:
        """Leave the attempt to gc."""
        self._place.delete([f"{ATTEMPTS}/{self.attempt}{CLAIM_SUFFIX}"])

    def _sizes(self) -> dict[str, int]:
        """What is there of every file, after an upload that was cut off is completed."""
        folder = f"{ATTEMPTS}/{self.attempt}"
        there = {entry.key for entry in self._place.walk(folder)}
        for file in self._marks:
            if f"{folder}/{file}" not in there:
                self._place.salvage(f"{folder}/{file}")
        return {
            entry.key.removeprefix(f"{folder}/"): entry.size for entry in self._place.walk(folder)
        }

    def _checked(self, file: str, marks: Marks, ends: Sequence[int]) -> tuple[int, dict[int, str]]:
        """The last mark that holds, and the digests at those `ends` that lie below it."""
        hasher, done, good = blake3(), 0, 0
        digests: dict[int, str] = {}
        known = dict(marks)
        stops = sorted({*known, *(end for end in ends if end <= marks[-1][0])})
        buffer = memoryview(bytearray(_PIECE))
        for stop in stops:
            while done < stop:
                part = buffer[: min(_PIECE, stop - done)]
                try:
                    self.read_into(file, done, part)
                except UnfinishedReadError:
                    self.failed = False  # known in time
                    return good, {end: text for end, text in digests.items() if end <= good}
                hasher.update(part)
                done += len(part)
            digest = hasher.hexdigest()
            if stop in known and known[stop] != digest:
                break
            good = stop if stop in known else good
            digests[stop] = digest
        return good, {end: digests[end] for end in ends if end <= good}

    def _reader(self, file: str) -> PlaceReader:
        reader = self._readers.get(file)
        if reader is None:
            fresh = self._place.open_reader(f"{ATTEMPTS}/{self.attempt}/{file}")
            reader = self._readers.setdefault(file, fresh)
            if reader is not fresh:  # another thread was first
                fresh.close()
        return reader


def take_unfinished(place: Place, kind: str, digest: str) -> list[Unfinished]:
    """Claim the dead attempts at one artifact; the one that came farthest comes first."""
    entries = {entry.key: entry for entry in place.children(ATTEMPTS)}
    markers = [key for key in entries if key.endswith(MARKER_SUFFIX)]
    remains: list[Unfinished] = []
    now: float | None = None
    for key in markers:
        note = _document(place, key)
        if (note.get("kind"), note.get("digest")) != (kind, digest):
            continue
        now = place.now() if now is None else now
        attempt = key.removeprefix(f"{ATTEMPTS}/").removesuffix(MARKER_SUFFIX)
        if is_gone(note, now - entries[key].modified) and _claim(place, attempt, entries, now):
            remains.append(Unfinished(place, attempt, _marks(note)))
    return sorted(remains, key=lambda each: (-each.journaled, each.attempt))


def _claim(place: Place, attempt: str, entries: Mapping[str, Any], now: float) -> bool:
    """Take the attempt's claim for reading; False when gc or a living publisher has it."""
    key = f"{ATTEMPTS}/{attempt}{CLAIM_SUFFIX}"
    claim = json.dumps({"by": "resume", **this_process()}).encode()
    if place.create(key, claim):
        return True
    standing = place.read(key)
    if standing is None:
        return False
    claimant = parsed_note(standing[0])
    silent = now - entries[key].modified if key in entries else 0.0
    abandoned = claimant.get("by") == "publish" and is_gone(claimant, silent)
    return (abandoned or claimant.get("by") == "resume") and place.replace(key, claim, standing[1])


def _document(place: Place, key: str) -> dict[str, Any]:
    found = place.read(key)
    return parsed_note(found[0]) if found else {}


def _marks(note: Mapping[str, Any]) -> dict[str, Marks]:
    """The marks of every file, as far as they make sense."""
    files = note.get("files")
    marks_by_file: dict[str, Marks] = {}
    for file, entry in files.items() if isinstance(files, dict) else ():
        marks = entry.get("marks") if isinstance(entry, dict) else None
        proper = [
            (mark[0], mark[1])
            for mark in (marks if isinstance(marks, list) else ())
            if isinstance(mark, list) and len(mark) == 2 and type(mark[0]) is int
        ]
        if proper and file_fault(file) is None:
            marks_by_file[file] = sorted(proper)
    return marks_by_file

"""Removing what crashed or lost: attempts no manifest points to, and other leftovers.

Why a published attempt is never removed: publishing creates the attempt's claim, then the manifest.
gc creates the claim of an old attempt first, and only one of the two can; only then does it read
which attempts the manifests name. So a publisher that comes later fails with a clear error, and
one that came earlier is seen, unless it paused between its claim and its manifest, two writes in a
row, for longer than the grace period and for at least an hour.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from resources.places.place import PROBE, TEMPORARY, Entry, Place
from resources.reading.records import Progress
from resources.store.artifact import parse_manifest
from resources.store.names import ARTIFACTS, ASIDE, ATTEMPTS, CLAIM_SUFFIX, MANIFEST, MARKER_SUFFIX

_ATTEMPT = re.compile(rb'"attempt": ?"([0-9a-f]{32})"')
MOMENT = 3600.0  # seconds; no small write, with all its retries, takes longer


@dataclass(frozen=True)
class Garbage:
    """An attempt nothing points to: its id, its files, their bytes, seconds since its last write.

    `pending` are files whose upload was never completed. `attempt` is empty for leftovers of
    probes, of interrupted small writes, and of uploads beside a published attempt, taken together.
    """

    attempt: str
    files: tuple[str, ...]
    nbytes: int
    idle_seconds: float
    pending: tuple[str, ...] = ()


@dataclass(frozen=True)
class GcReport:
    """What a gc removed, or with `dry_run` would remove."""

    dry_run: bool
    garbage: tuple[Garbage, ...]
    kept_attempts: int

    @property
    def nbytes(self) -> int:
        """Return the bytes removed, or to be removed."""
        return sum(piece.nbytes for piece in self.garbage)


def collect_garbage(
    place: Place, grace_seconds: float, dry_run: bool, progress: Progress | None = None
) -> GcReport:
    """Remove attempts that no manifest names and whose newest object is older than the grace.

    An attempt that was silent for `grace_seconds` counts as abandoned. A living one gives a sign at
    least every minute while it writes; leave hours for its pauses. With `dry_run` it is listed
    only. `progress` is called with (bytes removed, bytes to remove). DamagedArtifactError is raised
    where a manifest cannot be read; nothing is removed then.
    """
    now = place.now()
    attempts, pending = _attempts(place), _by_attempt(place.pending(ATTEMPTS))
    idle = {
        name: now - max(entry.modified for entry in attempts.get(name) or pending[name])
        for name in attempts.keys() | pending.keys()
    }
    graces = {name: _grace(name, attempts.get(name, []), grace_seconds) for name in idle}
    old = {name for name in idle if idle[name] >= graces[name]}
    named = _named_attempts(place) if old else set[str]()
    garbage = [
        _garbage(name, attempts.get(name, []), idle[name], pending.get(name, ()))
        for name in sorted(old - named)
    ]
    beside = [entry for name in sorted(old & named) for entry in pending.get(name, ())]
    beside += place.pending(PROBE)
    garbage += _leftovers(place, now, max(grace_seconds, MOMENT), beside)
    if not dry_run:
        doomed = {piece.attempt for piece in garbage if piece.attempt and _condemn(place, piece)}
        doomed -= _named_attempts(place) if doomed else set()
        garbage = [piece for piece in garbage if not piece.attempt or piece.attempt in doomed]
        _remove(place, garbage, progress)
        place.delete(_settled_notes(attempts, old & named))
    gone = sum(1 for piece in garbage if piece.attempt)
    return GcReport(dry_run, tuple(garbage), len(attempts) - gone)


def _grace(attempt: str, entries: list[Entry], grace_seconds: float) -> float:
    """The grace period, longer while a publisher may be between its claim and its manifest.

    Longer too for an upload whose attempt was not seen: it may have begun after the listing.
    """
    claimed = any(entry.key == _claim(attempt) for entry in entries)
    return max(grace_seconds, MOMENT) if claimed or not entries else grace_seconds


def _attempts(place: Place) -> dict[str, list[Entry]]:
    """Every attempt's objects, its marker and claim among them, by id."""
    return _by_attempt(place.walk(ATTEMPTS))


def _by_attempt(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        name = entry.key.split("/")[1]
        groups[name.removesuffix(MARKER_SUFFIX).removesuffix(CLAIM_SUFFIX)].append(entry)
    return dict(groups)


def _named_attempts(place: Place) -> set[str]:
    """Ids of all attempts that a manifest names, one that was set aside too, however damaged."""
    keys = [entry.key for entry in place.walk(ARTIFACTS) if entry.key.endswith("/" + MANIFEST)]

    def attempt(key: str) -> str:
        found = place.read(key)
        return parse_manifest(found[0], f"{place.uri}/{key}")["attempt"] if found else ""

    def set_aside(key: str) -> set[bytes]:
        found = place.read(key)
        return set(_ATTEMPT.findall(found[0])) if found else set()

    aside = [entry.key for entry in place.walk(ASIDE) if entry.key.endswith("/" + MANIFEST)]
    with ThreadPoolExecutor(place.readers, "gc") as pool:
        kept = {each.decode() for found in pool.map(set_aside, aside) for each in found}
        return kept | set(pool.map(attempt, keys))


def _condemn(place: Place, piece: Garbage) -> bool:
    """Take the attempt's claim for gc; a claim that is there and old has lost its publisher."""
    key = _claim(piece.attempt)
    return key in piece.files or place.create(key, json.dumps({"by": "gc"}).encode())


def _remove(place: Place, garbage: list[Garbage], progress: Progress | None) -> None:
    """Delete the files, and each attempt's claim last."""
    total, done = sum(piece.nbytes for piece in garbage), 0
    for piece in garbage:
        place.drop_pending(piece.pending)
        place.delete(piece.files)
        if piece.attempt:
            place.delete([_claim(piece.attempt)])
        done += piece.nbytes
        if progress:
            progress(done, total)


def _garbage(
    attempt: str, entries: list[Entry], idle: float, pending: Sequence[Entry] = ()
) -> Garbage:
    entries = sorted(entries, key=lambda entry: (entry.key.endswith(CLAIM_SUFFIX), entry.key))
    keys, uploads = (tuple(each.key for each in found) for found in (entries, pending))
    return Garbage(attempt, keys, sum(each.size for each in (*entries, *pending)), idle, uploads)


def _leftovers(
    place: Place, now: float, grace_seconds: float, pending: Sequence[Entry]
) -> list[Garbage]:
    pending = [entry for entry in pending if now - entry.modified >= grace_seconds]
    entries = [
        entry
        for prefix in (PROBE, TEMPORARY)
        for entry in place.walk(prefix)
        if now - entry.modified >= grace_seconds
    ]
    if not entries and not pending:
        return []
    last = max(entry.modified for entry in (*entries, *pending))
    return [_garbage("", entries, now - last, pending)]


def _settled_notes(attempts: dict[str, list[Entry]], published: set[str]) -> list[str]:
    """Markers and claims of attempts that are published and quiet: they have done their duty."""
    return [
        entry.key
        for name in sorted(published)
        for entry in attempts[name]
        if entry.key in (_claim(name), f"{ATTEMPTS}/{name}{MARKER_SUFFIX}")
    ]


def _claim(attempt: str) -> str:
    return f"{ATTEMPTS}/{attempt}{CLAIM_SUFFIX}"

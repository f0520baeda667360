"""Cases of flipped bits: what is flipped, what reads it, and what came of that."""

import bisect
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from merge_ops.errors import RongheError
from resources.errors import ResourceError
from resources.reading.digest_tree import TREE

REFUSED, HARMLESS, MISSED = "refused", "harmless", "missed"


@dataclass(frozen=True)
class Flip:
    """One bit of the file at `path`, or of the object of that key."""

    path: str
    byte: int
    bit: int

    def of(self, data: bytes) -> bytes:
        """The data with the bit flipped."""
        flipped = bytearray(data)
        flipped[self.byte] ^= 1 << self.bit
        return bytes(flipped)


@dataclass(frozen=True)
class Case:
    """What is flipped, by name; its files with their sizes; how; and what reads it.

    `use` returns a digest of all that comes out of it, or raises.
    """

    name: str
    sizes: Callable[[], dict[str, int]]
    flipped: "Callable[[Flip], Iterator[None]]"
    use: Callable[[], str]

    def outcome(self, rng: random.Random, right: str) -> tuple[str, Flip]:
        """Flip one bit, use what it is in, and say what came of that."""
        sizes = self.sizes()
        place = rng.randrange(sum(sizes.values()))
        starts = list(itertools.accumulate(sizes.values(), initial=0))
        number = bisect.bisect_right(starts, place) - 1
        flip = Flip(list(sizes)[number], place - starts[number], rng.randrange(8))
        with contextmanager(self.flipped)(flip):
            try:
                found = self.use()
            except (RongheError, ResourceError):
                return REFUSED, flip
        return HARMLESS if found == right else MISSED, flip


def run_cases(cases: Sequence[Case], flips: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """Flip bits in turn; a row for each case, and a line for each miss."""
    rng = random.Random(seed)
    rights = {case.name: case.use() for case in cases}
    counts = {case.name: {REFUSED: 0, HARMLESS: 0, MISSED: 0} for case in cases}
    misses: list[str] = []
    for _, case in zip(range(flips), itertools.cycle(cases), strict=False):
        outcome, flip = case.outcome(rng, rights[case.name])
        counts[case.name][outcome] += 1
        if outcome == MISSED:
            misses.append(f"{case.name}: bit {flip.bit} of byte {flip.byte} of {flip.path}")
    for case in cases:  # every bit is back
        if case.use() != rights[case.name]:
            misses.append(f"{case.name}: another result after all bits were put back")
    rows = [[name, *(str(number) for number in found.values())] for name, found in counts.items()]
    return rows, misses


def sizes_of(folder: Path) -> dict[str, int]:
    """Every file that holds bytes, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size
    }


def digest_of(folder: Path) -> str:
    """A digest of all files of a folder but the digests of pieces beside them."""
    hasher = blake3()
    for path in sorted(sizes_of(folder)):
        if path != TREE:
            hasher.update(path.encode() + b"\0" + (folder / path).read_bytes())
    return hasher.hexdigest()

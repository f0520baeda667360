r"""Patterns of an adapter's config: whether a regular expression means a module.

PEFT asks `re.match(rf"(.*\.)?({pattern})$", module)`. Python's matcher follows one way after the
other, and of a stranger's pattern there may be more ways than anybody can wait for. Here all ways
are followed at once: a part of the pattern takes the set of positions where it may begin to the set
of those where it may end, each set an integer whose bit p is position p of the name. The answer is
the same, and its cost is at most the pattern's length times the square of the name's. Steps are
counted, not timed, so an adapter gets the same verdict on every machine.

What a single character or place may be (`[a-z]`, `\w`, `\b`) is still asked of `re`. No set of
positions can tell references to groups, conditions on groups, and repetitions and groups that give
nothing back. They are refused, and so are flags, which PEFT's form allows inside only.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

MAX_LENGTH = 4096
"""Characters of a pattern; PEFT's own are under a hundred."""
MAX_GROUPS = 64
"""Opening brackets: they may nest, and what reads them recurses."""
MAX_STEPS = 1 << 20
"""For one pattern and one name; a usual one takes some hundred, and these half a second."""
MAX_PLAIN = 1024
"""Characters of a name that `re` may match with a pattern that neither repeats nor chooses."""
_FORKS = frozenset("*+?{|(")
_FLAGS = re.compile(r"\(\?[aiLmsux-]")
_QUANTIFIER = re.compile(r"([*+?]|\{(?!\})([0-9]*)(?:(,)([0-9]*))?\})([?+]?)")
_OPENING = re.compile(r"\((?:\?(?:(?P<look><?[=!])|(?P<other>\(|>|P=)|:|P<\w+>))?")
_COMMENT = re.compile(r"\(\?#[^)]*\)")
_REFERENCE = re.compile(r"\\(?![0-7]{3})[1-9]")
_PIECE = re.compile(
    r"\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|0[0-7]{0,2}|[0-7]{3}|.)|\[\^?\]?(?:\\.|[^]\\])*\]|.",
    re.DOTALL,
)
_PLACES = frozenset(("^", "$", "\\A", "\\Z", "\\b", "\\B"))


class PatternError(ValueError):
    """A pattern is no regular expression, or cannot be matched in bounded work."""


@lru_cache(maxsize=4096)
def module_pattern(text: str) -> ModulePattern:
    """Read a pattern as PEFT does and return it.

    Raises PatternError where it is too long, sets flags inside, or is no regular expression.
    """
    if len(text) > MAX_LENGTH or text.count("(") > MAX_GROUPS:
        most = f"at most {MAX_LENGTH} characters and {MAX_GROUPS} groups are read"
        raise PatternError(f"which is too long ({most}); name the modules one by one")
    if _FLAGS.search(text):
        raise PatternError("which sets flags inside; write it without, for example [Qq] for (?i)q")
    whole = rf"(.*\.)?({text})$"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a later Python may read otherwise
            usual = re.compile(whole)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"which is no regular expression ({error})") from error
    plain = not _FORKS & set(text)
    return ModulePattern(usual if plain else None, None if plain else _Parser(whole).choice())


@dataclass(frozen=True)
class ModulePattern:
    """A module pattern is a regular expression that is ready to be matched.

    `usual` is compiled where `re` has few ways to go; elsewhere `parts` holds the parts.
    """

    usual: re.Pattern[str] | None
    parts: _Part | None

    def means(self, module: str) -> bool:
        """Return whether the pattern matches the end of the module's name, as PEFT has it.

        Raises PatternError where that takes more than `MAX_STEPS` steps.
        """
        if self.usual is not None and len(module) <= MAX_PLAIN:
            return self.usual.match(module) is not None
        parts = self.parts
        if parts is None and self.usual is not None:
            parts = _Parser(self.usual.pattern).choice()
        return parts is not None and parts.ends(1, _Name(module)) != 0


@dataclass
class _Name:
    """A module's name while a pattern is matched: the steps so far and what is known of places."""

    text: str
    steps: int = 0
    known: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])

    def step(self) -> None:
        """Count one step, or more where a set of positions is a large number."""
        self.steps += 1 + (len(self.text) >> 10)
        if self.steps > MAX_STEPS:
            raise PatternError("too much work; write it without nested repetitions")


class _Part(Protocol):
    """A part of a pattern."""

    def ends(self, starts: int, name: _Name) -> int:
        """Where the part may end, as bits, when it begins at one of the bits of `starts`."""
        ...

    def width(self) -> int:
        """How many characters it takes; known where `re` allows it behind a place."""
        ...


def _positions(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


@dataclass(frozen=True, eq=False)
class _Piece:
    """One character or one place, as `re` understands it."""

    pattern: re.Pattern[str]

    def ends(self, starts: int, name: _Name) -> int:
        ends = 0
        for position in _positions(starts):
            name.step()
            match = self.pattern.match(name.text, position)
            ends |= 1 << match.end() if match else 0
        return ends

    def width(self) -> int:
        return 0 if self.pattern.pattern in _PLACES else 1


@dataclass(frozen=True, eq=False)
class _Sequence:
    """Parts one after the other."""

    parts: tuple[_Part, ...]

    def ends(self, starts: int, name: _Name) -> int:
        for part in self.parts:
            if not starts:
                break
            starts = part.ends(starts, name)
        return starts

    def width(self) -> int:
        return sum(part.width() for part in self.parts)


@dataclass(frozen=True, eq=False)
class _Choice:
    """Any of several parts."""

    parts: tuple[_Part, ...]

    def ends(self, starts: int, name: _Name) -> int:
        ends = 0
        for part in self.parts:
            name.step()
            ends |= part.ends(starts, name)
        return ends

    def width(self) -> int:
        return self.parts[0].width()


@dataclass(frozen=True, eq=False)
class _Repeat:
    """A part `low` to `high` times; None is any number of times."""

    part: _Part
    low: int
    high: int | None

    def ends(self, starts: int, name: _Name) -> int:
        ends = 0
        for position in _positions(starts):
            name.step()
            key = (id(self), position)
            if key not in name.known:
                name.known[key] = self._ends_from(1 << position, name)
            ends |= name.known[key]
        return ends

    def _ends_from(self, level: int, name: _Name) -> int:
        count = 0
        while level and count < self.low:
            after = self.part.ends(level, name)
            count = self.low if after == level else count + 1  # nothing would change any more
            level = after
        ends = fresh = level
        while fresh and (self.high is None or count < self.high):
            fresh = self.part.ends(fresh, name) & ~ends
            ends |= fresh
            count += 1
        return ends

    def width(self) -> int:
        return self.low * self.part.width()


@dataclass(frozen=True, eq=False)
class _Look:
    """A place that something follows or precedes, or does not."""

    part: _Part
    behind: bool
    negated: bool

    def ends(self, starts: int, name: _Name) -> int:
        ends = 0
        for position in _positions(starts):
            name.step()
            key = (id(self), position)
            if key not in name.known:
                name.known[key] = self._holds(position, name)
            ends |= name.known[key] << position
        return ends

    def _holds(self, position: int, name: _Name) -> bool:
        if self.behind:
            start = position - self.part.width()
            there = start >= 0 and self.part.ends(1 << start, name) >> position & 1 != 0
        else:
            there = self.part.ends(1 << position, name) != 0
        return there != self.negated

    def width(self) -> int:
        return 0


class _Parser:
    """The parts of a pattern that `re` has found to be right."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def choice(self) -> _Part:
        """Read up to the end of the text or of a group."""
        parts: list[_Part] = [self._sequence()]
        while self.text.startswith("|", self.at):
            self.at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if self._take(_COMMENT):
                continue
            quantifier = self._take(_QUANTIFIER) if parts else None
            if quantifier:
                parts.append(self._repeat(parts.pop(), quantifier))
            elif opening := self._take(_OPENING):
                parts.append(self._group(opening))
            elif self._take(_REFERENCE):
                raise PatternError("which refers to a group; name the modules one by one")
            elif piece := self._take(_PIECE):
                parts.append(_piece(piece[0]))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _take(self, token: re.Pattern[str]) -> re.Match[str] | None:
        match = token.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def _repeat(self, part: _Part, quantifier: re.Match[str]) -> _Part:
        sign, low, comma, high, mode = quantifier.groups()
        if mode == "+":
            raise PatternError("whose repetition gives nothing back (a second +); write one +")
        if sign in "*+?":
            return _Repeat(part, int(sign == "+"), 1 if sign == "?" else None)
        least = int(low or 0)
        return _Repeat(part, least, (int(high) if high else None) if comma else least)

    def _group(self, opening: re.Match[str]) -> _Part:
        if opening["other"]:
            raise PatternError("which refers to a group or closes one; name the modules one by one")
        part, look = self.choice(), opening["look"]
        self.at += 1  # the closing bracket
        return _Look(part, "<" in look, "!" in look) if look else part


@lru_cache(maxsize=1024)
def _piece(text: str) -> _Piece:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Piece(re.compile(text))

"""What an upstream model says of itself: the front matter of its card, and its licence files.

Both are written by strangers: they are read with bounds, and what cannot be read says nothing. A
card that a merge wrote states no licence of its own, and the licence file beside it is one input's:
of such a model the card counts alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents
from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.errors import AncestryError
from merge_ops.provenance.licences import MOST_WRITTEN, UNKNOWN, licence, rules

CARD = "README.md"
MOST_CARD, MOST_HEAD, MOST_FILES = 256 << 10, 1500, 8
"""Bytes of a card that are read, those of a licence file's beginning, and licence files."""
MOST_LISTED, MOST_LINK = 40, 400
"""Entries of a list in a card, and characters of a link."""
OWN_TAG = "ronghe"
_LICENCE_FILE = re.compile(
    r"(MODEL[_-])?(LICEN[CS]E|COPYING)[\w .-]*|.*LICEN[CS]E.*", re.IGNORECASE
)
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class CardFacts:
    """Card facts are what a model's own files say of it, each as it is written.

    `licences`, `licence_name` and `licence_link` are `license`, `license_name` and `license_link`
    of its card; `heads` holds the licence ids that the files beside it begin as, by file.
    `problem` says why the card could not be read.
    """

    licences: tuple[str, ...] = ()
    licence_name: str | None = None
    licence_link: str | None = None
    heads: Mapping[str, str] = field(default_factory=dict[str, str])
    languages: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    problem: str | None = None

    @property
    def licence_ids(self) -> tuple[str, ...]:
        """Return the ids of the licences that it states, sorted; none where it states nothing."""
        return stated_ids(self)[0]

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: object) -> CardFacts:
        """Read what `to_json` returned. Raises AncestryError where it is something else."""
        try:
            table = dict(cast("Mapping[str, Any]", document))
            for name in ("licences", "languages"):
                table[name] = tuple(map(str, table[name]))
            return cls(**table)
        except (KeyError, TypeError, ValueError) as error:
            raise AncestryError(f"these are no facts of a model's card: {error}") from error


def read_facts(source: ByteSource, files: Mapping[str, int]) -> CardFacts:
    """Read what the files of a model say of it.

    `files` are their sizes by path. A file that cannot be read says nothing, and is named in
    `problem`.
    """
    try:
        card = _text(source, files, CARD, MOST_CARD) if CARD in files else ""
        front, problem = _front_matter(card)
        if OWN_TAG in _words(front.get("tags")):
            names: list[str] = []
        else:
            names = [name for name in sorted(files) if _is_licence_file(name)][:MOST_FILES]
        heads = {name: _heading(_text(source, files, name, MOST_HEAD)) for name in names}
    except OSError as error:
        return CardFacts(problem=f"cannot be read: {error}")
    return CardFacts(
        licences=_words(front.get("license")),
        licence_name=_word(front.get("license_name")),
        licence_link=_word(front.get("license_link"), MOST_LINK),
        heads={name: found for name, found in heads.items() if found is not None},
        languages=_words(front.get("language")),
        pipeline_tag=_word(front.get("pipeline_tag")),
        problem=problem,
    )


def stated_ids(
    facts: CardFacts | None, catalog: str | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of all licences that are stated for a model, and what should be said of that.

    `catalog` is what a catalog says. Where card, licence files and catalog name different licences
    all of them count, so that the strictest decides. What the rules do not know counts where
    nothing else is known of that place: a card's unknown name gives way to its licence file.
    """
    of_card = _of_card(facts) if facts is not None else ()
    of_files = tuple(sorted(set(facts.heads.values()))) if facts is not None else ()
    known_card = tuple(each for each in of_card if licence(each).known)
    unknown_card = () if known_card or of_files else of_card
    of_catalog = (licence(catalog).id,) if catalog is not None and catalog.strip() else ()
    of_catalog = tuple(each for each in of_catalog if each != UNKNOWN)
    if of_catalog and licence(of_catalog[0]).known:
        unknown_card = ()  # the team has looked
    places = {"its card": known_card, "its licence files": of_files, "the catalog": of_catalog}
    said = {place: ids for place, ids in places.items() if ids}
    ids = tuple(sorted({each for several in (*said.values(), unknown_card) for each in several}))
    notes: list[str] = []
    if len({frozenset(each) for each in said.values()}) > 1:
        told = ", ".join(f"{place}: {' and '.join(each)}" for place, each in said.items())
        notes.append(f"states different licences ({told}); all count, and the strictest decides")
    if facts is not None and facts.problem is not None:
        notes.append(f"has a card that says nothing: it {facts.problem}")
    return ids, tuple(notes)


def _of_card(facts: CardFacts) -> tuple[str, ...]:
    """The ids that a card names: its `license`, or `license_name` where that says nothing."""
    named = [licence(each).id for each in facts.licences]
    if facts.licence_name is not None:
        named = [each for each in named if each != UNKNOWN and licence(each).known]
        named.append(licence(facts.licence_name).id)
    return tuple(sorted({each for each in named if each != UNKNOWN}))


def _front_matter(card: str) -> tuple[Mapping[str, Any], str | None]:
    """The mapping that a card begins with, and why there is none that can be read."""
    found = _FRONT.match(card)
    if found is None:
        return {}, None
    try:
        document = load_documents(found[1], any_base=True)[0]
    except DocumentError:
        return {}, "begins with no YAML that can be read"
    if not isinstance(document, dict):
        return {}, None if document is None else "begins with no mapping of names to values"
    return cast("dict[str, Any]", document), None


def _heading(text: str) -> str | None:
    """The id of the licence that a file begins as: the one whose phrases are longest."""
    plain = _flat(text)
    best, longest = None, 0
    for each in rules().values():
        for phrases in each.headings:
            length = sum(map(len, phrases))
            if length > longest and all(_flat(phrase) in plain for phrase in phrases):
                best, longest = each.id, length
    return best


def _flat(text: str) -> str:
    return " ".join(text.lower().split())


def _is_licence_file(name: str) -> bool:
    return "/" not in name and _LICENCE_FILE.fullmatch(PurePosixPath(name).name) is not None


def _text(source: ByteSource, files: Mapping[str, int], name: str, most: int) -> str:
    return read_file(source, name, 0, min(files[name], most)).decode("utf-8", "replace")


def _words(value: object) -> tuple[str, ...]:
    listed: Iterable[object] = (
        cast("Sequence[object]", value) if isinstance(value, list) else [value]
    )
    words = (_word(each) for each in list(listed)[:MOST_LISTED])
    return tuple(word for word in words if word is not None)


def _word(value: object, most: int = MOST_WRITTEN) -> str | None:
    """A short text of one line; None for anything else."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    text = " ".join(str(value).split())
    return text[:most] or None

"""Licences of models as rules: which one decides, what is owed, and which do not go together.

The rules are data, in licences.yaml beside this module. They are a reading aid and no legal advice
(`NO_ADVICE`, which every output says): the licence's own text is what counts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from merge_ops.errors import AncestryError

NO_ADVICE = "This is a reading aid and no legal advice; the licences' own texts are what counts."
UNKNOWN = "unknown"
"""Id of the licence of what states none, or one that the rules do not know."""
ASK = "ask"
"""The last rank: what cannot be told from what is written."""
DISPLAY, NAME_PREFIX = "display", "name_prefix"
"""Kinds of duties that can be looked at: words to be shown, and how the name has to begin."""
JOIN = " + "
MOST_WRITTEN = 120
"""Characters of a licence that the rules do not know."""
_SAYS_NOTHING = frozenset(("", "other", "unknown", "none", "not-stated", "custom", "cc"))


@dataclass(frozen=True, order=True)
class Duty:
    """A duty is what a licence asks of whoever passes a derivative on.

    `kind` is one word (`display`, `name_prefix`, `keep_notice`, `attribution`, …). Of a `display`
    the text is what has to be shown, or one of `also` in its place; of a `name_prefix` how the name
    begins.
    """

    kind: str
    text: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == DISPLAY:
            words = " or ".join(f'"{each}"' for each in (self.text, *self.also))
            return f"show {words} where it is offered"
        if self.kind == NAME_PREFIX:
            return f'give it a name that begins with "{self.text}"'
        return self.text


@dataclass(frozen=True)
class Licence:
    """A licence as the rules know it.

    `rank` is its place in the order of demands, `rank_name` what that place is called. `traits` are
    what the rules of conflicts go by. `on_hub` tells whether the Hub has this id for it.
    """

    id: str
    name: str
    rank: int
    rank_name: str
    duties: tuple[Duty, ...] = ()
    traits: frozenset[str] = frozenset()
    link: str | None = None
    spdx: str | None = None
    headings: tuple[tuple[str, ...], ...] = ()
    on_hub: bool = False

    @property
    def known(self) -> bool:
        """Tell whether the rules know it."""
        return self.rank_name != ASK

    @property
    def conflicts(self) -> frozenset[str]:
        """Return the ids of the licences that it does not go together with.

        Its own is among them where it forbids derivatives.
        """
        others = rules().values()
        return frozenset(each.id for each in others if _conflict(self, each) is not None)


@dataclass(frozen=True, order=True)
class Conflict:
    """A conflict is two licences that do not go together, or one that allows no derivative.

    `id` is what a recipe accepts it by: the licences' ids, sorted, with ` + ` between them.
    """

    licences: tuple[str, ...]
    because: str
    link: str | None = None

    @property
    def id(self) -> str:
        """Return the name that a recipe accepts it by."""
        return JOIN.join(self.licences)


@dataclass(frozen=True)
class EffectiveLicence:
    """An effective licence tells what holds for something made of several models.

    `licence` is the strictest one, of equally strict ones the first by id; `binding` are all of
    them, the strictest first, for every one still holds. `decided_by` names the inputs that
    `licence` comes from, `inputs` the ids of each input's licences.
    """

    licence: Licence
    binding: tuple[Licence, ...]
    decided_by: tuple[str, ...]
    duties: tuple[Duty, ...]
    conflicts: tuple[Conflict, ...]
    inputs: Mapping[str, tuple[str, ...]]

    def open_conflicts(self, accepted: Iterable[str]) -> tuple[Conflict, ...]:
        """Return the conflicts that nobody accepted by name; the order of the ids is free."""
        taken = {conflict_id(each) for each in accepted}
        return tuple(each for each in self.conflicts if each.id not in taken)

    def to_json(self) -> dict[str, Any]:
        """Return plain data: the licence that decides, those that bind, duties and conflicts."""
        return {
            "licence": self.licence.id,
            "name": self.licence.name,
            "rank": self.licence.rank_name,
            "link": self.licence.link,
            "decided_by": list(self.decided_by),
            "binding": [each.id for each in self.binding],
            "duties": [{"kind": each.kind, "text": str(each)} for each in self.duties],
            "conflicts": [
                {"id": each.id, "because": each.because, "link": each.link}
                for each in self.conflicts
            ],
            "inputs": {name: list(ids) for name, ids in self.inputs.items()},
            "note": NO_ADVICE,
        }

    def name_faults(self, name: str) -> tuple[str, ...]:
        """Return the beginnings that a name must have and has not, whatever their case."""
        wanted = (each.text for each in self.duties if each.kind == NAME_PREFIX)
        plain = _plain(name)
        return tuple(each for each in wanted if not plain.startswith(_plain(each)))


def conflict_id(written: str) -> str:
    """Return a conflict's name in its one spelling: ids as the rules have them, sorted."""
    parts = re.split(r"\s\+\s", written.strip())  # `openrail++` has signs of its own
    return JOIN.join(sorted({licence(each).id for each in parts}))


def effective(licences: Mapping[str, str | Sequence[str] | None]) -> EffectiveLicence:
    """Return what holds for something that is made of models under these licences.

    `licences` has an id, or several, by model; None stands for one that states none. The strictest
    decides, every duty stays, and each pair that does not go together is a conflict. Raises
    AncestryError where there is no model.
    """
    if not licences:
        raise AncestryError("a licence was asked for what is made of no model")
    inputs = {name: _ids_of(stated) for name, stated in sorted(licences.items())}
    by_id = {each: licence(each) for ids in inputs.values() for each in ids}
    binding = tuple(sorted(by_id.values(), key=lambda each: (-each.rank, each.id)))
    strictest = binding[0]
    return EffectiveLicence(
        licence=strictest,
        binding=binding,
        decided_by=tuple(name for name, ids in inputs.items() if strictest.id in ids),
        duties=tuple(dict.fromkeys(duty for each in binding for duty in each.duties)),
        conflicts=_conflicts_of(binding),
        inputs=inputs,
    )


def licence(written: str | None) -> Licence:
    """Return the licence that an id, an SPDX id or another spelling stands for.

    What the rules do not know is a licence of rank `ask` under the id that was written; where
    nothing was, or a word that says nothing (`other`), the id is `unknown`.
    """
    if written is None or _plain(written) in _SAYS_NOTHING:
        return rules()[UNKNOWN]
    found = _spellings().get(_plain(written))
    return rules()[found] if found is not None else _unknown(written.strip()[:MOST_WRITTEN])


@cache
def rules() -> Mapping[str, Licence]:
    """Return the licences that the rules know, by id; `unknown` is one of them."""
    written = _written()
    ranks: list[str] = written["ranks"]
    known: dict[str, Licence] = {}
    for each in written["licences"]:
        known[each["id"]] = Licence(
            id=each["id"],
            name=each["name"],
            rank=ranks.index(each["rank"]),
            rank_name=each["rank"],
            duties=tuple(_duty(duty) for duty in each.get("duties", ())),
            traits=frozenset(each.get("traits", ())),
            link=each.get("link"),
            spdx=each.get("spdx"),
            headings=tuple(tuple(heading) for heading in each.get("headings", ())),
            on_hub=each.get("on_hub", True),
        )
    known[UNKNOWN] = _unknown(UNKNOWN)
    return known


def _unknown(written: str) -> Licence:
    rank = len(_written()["ranks"]) - 1
    if written == UNKNOWN:
        text = "ask what the licence is: a model states none"
        return Licence(UNKNOWN, "not stated", rank, ASK, (Duty(ASK, text),))
    text = f"ask what the licence {written!r} allows: the rules do not know it"
    return Licence(written, written, rank, ASK, (Duty(ASK, text),))


def _ids_of(stated: str | Sequence[str] | None) -> tuple[str, ...]:
    several = (stated,) if stated is None or isinstance(stated, str) else tuple(stated) or (None,)
    return tuple(sorted({licence(each).id for each in several}))


def _conflicts_of(licences: Sequence[Licence]) -> tuple[Conflict, ...]:
    pairs = itertools.combinations_with_replacement(licences, 2)
    found = (_conflict(first, second) for first, second in pairs)
    return tuple(sorted(each for each in found if each is not None))


def _conflict(first: Licence, second: Licence) -> Conflict | None:
    """The conflict of two licences, or of one that allows no derivative; None: there is none."""
    ids = tuple(sorted({first.id, second.id}))
    one, other = (each.traits | {each.id} for each in (first, second))
    for rule in _written()["conflicts"]:
        if first.id == second.id:
            meant = rule.get("alone") in one
        else:
            a, b = rule.get("between"), rule.get("and")
            meant = (a in one and b in other) or (b in one and a in other)
        if meant:
            return Conflict(ids, rule["because"], rule.get("link"))
    if _names_clash(_prefixes(first), _prefixes(second)):
        return Conflict(ids, "each asks that the name begin with words of its own")
    return None


def _prefixes(licence: Licence) -> list[str]:
    return [duty.text for duty in licence.duties if duty.kind == NAME_PREFIX]


def _names_clash(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether no one name can begin as both ask for."""
    return any(
        not (_plain(a).startswith(_plain(b)) or _plain(b).startswith(_plain(a)))
        for a in first
        for b in second
    )


def _duty(written: Mapping[str, Any]) -> Duty:
    return Duty(written["kind"], written["text"], tuple(written.get("also", ())))


@cache
def _spellings() -> Mapping[str, str]:
    """Every way to write a licence that is known, in its plain form, to the licence's id."""
    table: dict[str, str] = {}
    for each in _written()["licences"]:
        for name in (each["id"], each.get("spdx"), *each.get("aliases", ())):
            if name is not None:
                table.setdefault(_plain(name), each["id"])
    return table


def _plain(written: str) -> str:
    """Lower case, one '-' for blanks and low lines, and no word for licence behind it."""
    text = re.sub(r"[\s_-]+", "-", written.strip().lower())
    return re.sub(r"-licen[cs]e$", "", text)


@cache
def _written() -> Mapping[str, Any]:
    """The rules' file, our own: read by libyaml where PyYAML has it, ten times sooner."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"), loader)

"""New tokens of a BPE: the merges that make them, behind those that there are.

Merges work by rank: all old ones are done before the first new one. So a text is cut as before, and
then some of its parts are joined: without a new token in it nothing changes, and with one it never
has more parts. A token is reached by merges of two parts that are tokens themselves; where these
are missing they become tokens too (bridges): the characters of a new token first, then its
beginnings.

Chinese-LLaMA gave its pieces the score 0, before all old ones, which lets them take bytes and
letters from old tokens; and a piece that no merge leads to was never met.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from merge_ops.vocabularies.token_texts import Spelling, spelled

Pair = tuple[str, str]


@dataclass
class GrowingMerges:
    """Growing merges hold the ids and merges of a BPE, to which tokens are added one by one.

    `ids` has every token, the new ones included. `bridges` are the tokens that were added on the
    way, in order; their ids follow from `following` on.
    """

    ids: dict[str, int]
    ranks: dict[Pair, int]
    next_rank: int
    spelling: Spelling
    following: int
    bridges: list[str] = field(default_factory=list[str])
    merges: list[Pair] = field(default_factory=list[Pair])

    def add(self, token: str, text: str | None) -> None:
        """Make a token, which spells `text`, one that the merges lead to.

        It has no text where it spells a part of a character.
        """
        for letter in dict.fromkeys(text or ""):
            if not letter.isascii():
                self._join(spelled(letter, self.spelling))
        self._join(token)

    def parts(self, token: str) -> list[str]:
        """Return what the merges so far make of a spelled token, as the tokenizers library does.

        The pair of the lowest rank is joined first, of several the leftmost.
        """
        parts = list(token)
        while len(parts) > 1:
            found = [
                (self.ranks.get((left, right), -1), at)
                for at, (left, right) in enumerate(itertools.pairwise(parts))
            ]
            known = [each for each in found if each[0] >= 0]
            if not known:
                break
            at = min(known)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts

    def _join(self, token: str) -> None:
        for letter in token:
            self._name(letter)
        parts = self.parts(token)
        while len(parts) > 1:
            self._name(parts[0] + parts[1])
            pair = (parts[0], parts[1])
            self.ranks[pair] = self.next_rank
            self.next_rank += 1
            self.merges.append(pair)
            parts = self.parts(token)

    def _name(self, token: str) -> None:
        """Make sure that a token has an id."""
        if token not in self.ids:
            self.ids[token] = self.following
            self.following += 1
            self.bridges.append(token)


def pairs_of(merges: Iterable[str | list[str]]) -> list[Pair]:
    """Return the merges of a tokenizer.json as pairs of tokens, in order."""
    pairs = (each.split(" ") if isinstance(each, str) else each for each in merges)
    return [(left, right) for left, right in pairs]


def growing_merges(
    ids: Mapping[str, int], merges: Iterable[Pair], spelling: Spelling, following: int
) -> GrowingMerges:
    """Return the merges of a tokenizer, ready to grow; of equal pairs the last holds."""
    listed = list(merges)
    ranks = {pair: rank for rank, pair in enumerate(listed)}
    return GrowingMerges(dict(ids), ranks, len(listed), spelling, following)

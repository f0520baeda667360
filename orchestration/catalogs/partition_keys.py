"""Many partition keys at little cost: static partitions hashed once, and points that nobody lists.

A catalog of 500 experts in pairs at three coefficients has 374,250 points, and each step's process
loads it. What is here costs time for the 124,750 sets alone, once.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import dagster as dg
from blake3 import blake3


class KeyedOnce(dg.StaticPartitionsDefinition):
    """Static partitions whose name for sets and dicts is written once.

    Dagster hashes a definition by the text of all its keys, anew at every look into a dict, of
    which loading a catalog and planning a refresh make many. Text, hash and equality stay Dagster's
    own, so that one read back from a snapshot is the same.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        """Keep the keys as a list, as Dagster does where it reads a definition back."""
        super().__init__(list(keys))

    @cached_property
    def _text(self) -> str:
        return f"StaticPartitionsDefinition(partition_keys={self.get_partition_keys()})"

    def __repr__(self) -> str:
        """Return Dagster's own text of static partitions."""
        return self._text

    def __hash__(self) -> int:
        """Hash the text, as Dagster does."""
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        """Compare with any static partitions by their keys."""
        return self is other or super().__eq__(other)


class Points(Mapping[str, tuple[str, str]]):
    """The points of a grid: expert set and coefficient by partition key, made when asked for."""

    def __init__(self, sets: tuple[str, ...], coefficients: tuple[str, ...]) -> None:
        """Remember both dimensions."""
        self._sets, self._coefficients = sets, coefficients

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self._sets) * len(self._coefficients)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in Dagster's order: dimensions are sorted by name."""
        for coefficient in self._coefficients:
            for expert_set in self._sets:
                yield f"{coefficient}|{expert_set}"

    def __getitem__(self, key: str) -> tuple[str, str]:
        """Return the expert set and the coefficient of one key. Raises KeyError."""
        coefficient, _, expert_set = key.partition("|")
        if coefficient not in self._coefficients or expert_set not in self._members:
            raise KeyError(key)
        return expert_set, coefficient

    @property
    def digest(self) -> str:
        """Change with the sets and the coefficients, whichever of a grid's points that touches."""
        text = "\n".join([*self._coefficients, "", *self._sets])
        return blake3(text.encode()).hexdigest()[:32]

    @cached_property
    def _members(self) -> frozenset[str]:
        return frozenset(self._sets)

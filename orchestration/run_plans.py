"""Few runs for many partitions: assets of equal partitions, and ranges of keys, in one run each."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.batches import MORE_RANGES, RANGE_END, RANGE_START, between, range_tags
from orchestration.catalogs import COEFFICIENT, EXPERTS

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

PARTITION = "dagster/partition"
MOST_RANGES = 256
"""Ranges of one run at most: they stand in a tag of it."""
MOST_PARTITIONS = 500
"""Partitions of one run at most: Dagster notes for each, before a check, all that the run has."""


@dataclass(frozen=True)
class RunPlan:
    """A run plan is one run: assets of equal partitions, and which (None: not partitioned).

    `ranges` are the first and last keys of neighbours among the `keys`. `riders` are summaries, not
    partitioned, that come after the assets in the same run.
    """

    assets: tuple[dg.AssetKey, ...]
    keys: tuple[str, ...] | None
    ranges: tuple[tuple[str, str], ...] = ()
    riders: tuple[dg.AssetKey, ...] = ()

    @property
    def partitions(self) -> set[str | None]:
        """The keys as a set; of an asset without partitions, None alone."""
        return {None} if self.keys is None else set(self.keys)

    @property
    def everything(self) -> list[dg.AssetKey]:
        """The assets and the riders."""
        return [*self.assets, *self.riders]

    def parts_of(self, key: dg.AssetKey) -> set[str | None]:
        """The keys that the run is for of one asset."""
        return {None} if key in self.riders else self.partitions

    @property
    def partition_key(self) -> str | None:
        """The key of a run of one partition."""
        return self.keys[0] if self.keys is not None and len(self.keys) == 1 else None

    @property
    def tags(self) -> dict[str, str]:
        """The tags that make a run of several partitions."""
        if self.keys is None or len(self.keys) == 1:
            return {}
        return range_tags(self.ranges)


def plan_runs(
    graph: "AssetGraph", wanted: Mapping[dg.AssetKey, set[str | None]]
) -> Iterator[RunPlan]:
    """Plan as few runs as there are kinds of wishes: assets with equal partitions share one.

    Each partition of a run has a data version of its own (assets/frame/batches.py), so nothing is
    lost by many of them in one run. Dagster's ranges have no holes: what is not neighbours is so
    many ranges. A run holds no more than MOST_RANGES of them, and MOST_PARTITIONS: what a run costs
    beside its work then stays in line with its partitions.
    """
    together: dict[tuple[Any, frozenset[str | None]], list[dg.AssetKey]] = {}
    for key, partitions in wanted.items():
        shape = graph.get(key).partitions_def
        together.setdefault((shape, frozenset(partitions)), []).append(key)
    for (definition, partitions), assets in together.items():
        if definition is None:
            yield RunPlan(tuple(assets), None)
            continue
        blocks = key_ranges(definition, {str(each) for each in partitions})
        for several in _shared_out(blocks):
            keys = tuple(key for block in several for key in block)
            yield RunPlan(tuple(assets), keys, tuple((b[0], b[-1]) for b in several))


def partitions_of(tags: Mapping[str, str], definition: dg.PartitionsDefinition) -> Iterator[str]:
    """List the partitions that a run's tags name, as far as they are live.

    Dagster itself knows of the first range alone.
    """
    if PARTITION in tags:
        yield tags[PARTITION]
    ranges = json.loads(tags.get(MORE_RANGES, "[]"))
    if RANGE_START in tags:
        ranges = [(tags[RANGE_START], tags[RANGE_END]), *ranges]
    known = {str(each) for each in definition.get_partition_keys()} if ranges else set[str]()
    for first, last in ranges:
        if {first, last} <= known:
            yield from map(str, between(definition, first, last))


def _shared_out(blocks: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """Give each run its ranges, in order; one that is too long for a run is several."""
    several: list[Sequence[str]] = []
    held = 0
    for block in blocks:
        for part in _cut(block):
            if several and (held + len(part) > MOST_PARTITIONS or len(several) == MOST_RANGES):
                yield several
                several, held = [], 0
            several.append(part)
            held += len(part)
    if several:
        yield several


def _cut(block: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a range into ranges of MOST_PARTITIONS at most; in a grid whole sets stay together.

    A set of more points than that is cut between its points: a row of a grid is a range too.
    """
    sets = len({key.partition("|")[2] for key in block})
    row = len(block) // sets if "|" in block[0] else 1
    whole = max(1, MOST_PARTITIONS // row) * row
    for start in range(0, len(block), whole):
        rows = block[start : start + whole]
        for first in range(0, len(rows), MOST_PARTITIONS):
            yield rows[first : first + MOST_PARTITIONS]


def key_ranges(definition: dg.PartitionsDefinition, requested: set[str]) -> Iterator[Sequence[str]]:
    """Split the `requested` keys into ranges, in the definition's order.

    A range is a run of neighbours, in a grid neighbouring sets with the same neighbouring
    coefficients.
    """
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        yield from _neighbours([str(key) for key in definition.get_partition_keys()], requested)
        return
    points = definition.get_partitions_def_for_dimension(COEFFICIENT).get_partition_keys()
    asked: dict[str, set[str]] = {}
    for key in requested:
        point, _, expert_set = key.partition("|")
        asked.setdefault(expert_set, set()).add(point)
    open_ranges: dict[tuple[str, ...], list[str]] = {}
    for expert_set in definition.get_partitions_def_for_dimension(EXPERTS).get_partition_keys():
        row = [tuple(run) for run in _neighbours(points, asked.get(expert_set, set()))]
        for run in [each for each in open_ranges if each not in row]:
            yield _block(run, open_ranges.pop(run))
        for run in row:
            open_ranges.setdefault(run, []).append(expert_set)
    for run, sets in open_ranges.items():
        yield _block(run, sets)


def _block(points: Sequence[str], sets: Sequence[str]) -> list[str]:
    """The keys of neighbouring sets at the same points, in the order of a run: set by set."""
    return [
        str(dg.MultiPartitionKey({EXPERTS: expert_set, COEFFICIENT: point}))
        for expert_set in sets
        for point in points
    ]


def _neighbours(keys: Sequence[str], requested: set[str]) -> Iterator[list[str]]:
    run: list[str] = []
    for key in keys:
        if key in requested:
            run.append(key)
        elif run:
            yield run
            run = []
    if run:
        yield run

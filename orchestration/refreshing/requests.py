"""What automation asks for, in an order and in runs: pending partitions, ready ones, few runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.catalogs import COEFFICIENT, EXPERTS

if TYPE_CHECKING:
    from assets.dagster_internals import AssetGraph

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class RunPlan:
    """A run plan is one run: assets of equal partitions, and the keys (None: not partitioned).

    `divisible` says that after a failure each key may be tried by itself.
    """

    assets: tuple[dg.AssetKey, ...]
    keys: tuple[str, ...] | None
    divisible: bool = False

    @property
    def partitions(self) -> set[str | None]:
        """The keys as a set; of an asset without partitions, None alone."""
        return {None} if self.keys is None else set(self.keys)

    def divided(self) -> "list[RunPlan]":
        """Split the run into one for each key."""
        return [RunPlan(self.assets, (key,)) for key in self.keys or ()]

    @property
    def partition_key(self) -> str | None:
        """The key of a run of one partition."""
        return self.keys[0] if self.keys is not None and len(self.keys) == 1 else None

    @property
    def tags(self) -> dict[str, str]:
        """The tags that make a run of several partitions."""
        if self.keys is None or len(self.keys) == 1:
            return {}
        return {RANGE_START: self.keys[0], RANGE_END: self.keys[-1]}


@dataclass
class Pending:
    """Requested partitions that have not run yet. An asset waits while an ancestor is pending.

    `failed` was run in vain; it is not tried again now, but waits for another time.
    """

    graph: "AssetGraph"
    wanted: dict[dg.AssetKey, set[str | None]] = field(default_factory=dict)
    failed: dict[dg.AssetKey, set[str | None]] = field(default_factory=dict)

    def add(self, requested: Mapping[dg.AssetKey, Iterable[str | None]]) -> None:
        """Take in what one look at the conditions asked for."""
        for key, partitions in requested.items():
            if partitions:
                self.wanted.setdefault(key, set()).update(partitions)

    @property
    def waiting(self) -> dict[dg.AssetKey, set[str | None]]:
        """All that was asked for and is not materialized."""
        keys = self.wanted.keys() | self.failed.keys()
        return {key: self.wanted.get(key, set()) | self.failed.get(key, set()) for key in keys}

    def ready(self) -> Iterator[RunPlan]:
        """Plan runs for the assets that wait for nothing, in the graph's order."""
        order = [key for key in self.graph.toposorted_asset_keys if key in self.wanted]
        ready = [key for key in order if not self._ancestors(key) & self.wanted.keys()]
        yield from plan_runs(self.graph, {key: self.wanted[key] for key in ready})

    def settle(self, plan: RunPlan, failed: Mapping[dg.AssetKey, set[str | None]]) -> None:
        """Take note that a run is over; `failed` is what it has not materialized."""
        for key in plan.assets:
            self.wanted[key] = self.wanted[key] - plan.partitions
            if not self.wanted[key]:
                del self.wanted[key]
            earlier = self.failed.get(key, set()) - plan.partitions
            self.failed[key] = earlier | failed[key]

    def _ancestors(self, key: dg.AssetKey) -> set[dg.AssetKey]:
        return set(self.graph.get_ancestor_asset_keys(key)) - {key}


def plan_runs(
    graph: "AssetGraph", wanted: Mapping[dg.AssetKey, set[str | None]]
) -> Iterator[RunPlan]:
    """Plan as few runs as keep data versions exact. Assets with equal wishes share runs.

    Dagster records one data version for a run, and a partition downstream runs when the version of
    its input changes. So assets that partitions depend on get one run a partition, or of a grid one
    an expert set; the others (scores) get as few as ranges of partitions allow.
    """
    together: dict[tuple[str, frozenset[str | None], bool], list[dg.AssetKey]] = {}
    for key, partitions in wanted.items():
        shape = repr(graph.get(key).partitions_def)
        together.setdefault((shape, frozenset(partitions), _is_last(graph, key)), []).append(key)
    for (_, partitions, is_last), assets in together.items():
        definition = graph.get(assets[0]).partitions_def
        if definition is None:
            yield RunPlan(tuple(assets), None)
            continue
        for keys in key_ranges(definition, {str(each) for each in partitions}, is_last):
            yield RunPlan(tuple(assets), tuple(keys), is_last and len(keys) > 1)


def _is_last(graph: "AssetGraph", key: dg.AssetKey) -> bool:
    """Whether no partitioned asset depends on this one."""
    children = graph.get(key).child_keys
    return all(graph.get(child).partitions_def is None for child in children)


def key_ranges(
    definition: dg.PartitionsDefinition, requested: set[str], wide: bool
) -> Iterator[Sequence[str]]:
    """Split the `requested` keys into runs, in order: Dagster's ranges have no holes.

    Not `wide`: one key a run, or in a grid the neighbouring coefficients of one expert set. `wide`:
    neighbouring keys, or in a grid neighbouring sets with the same coefficients.
    """
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        neighbours = _neighbours([str(key) for key in definition.get_partition_keys()], requested)
        yield from neighbours if wide else ([key] for run in neighbours for key in run)
        return
    sets = definition.get_partitions_def_for_dimension(EXPERTS).get_partition_keys()
    points = definition.get_partitions_def_for_dimension(COEFFICIENT).get_partition_keys()
    rows: list[list[list[str]]] = []
    for expert_set in sets:
        row = [str(dg.MultiPartitionKey({EXPERTS: expert_set, COEFFICIENT: p})) for p in points]
        rows.append(list(_neighbours(row, requested)))
    for position, row in enumerate(rows):
        for run in row:
            block = list(run)
            below = position + 1
            while wide and below < len(rows) and (same := _same_points(run, rows[below])):
                rows[below].remove(same)
                block += same
                below += 1
            yield block


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


def _same_points(run: Sequence[str], row: Sequence[list[str]]) -> list[str] | None:
    """The run of another set's row that covers the same coefficients."""
    points = [key.split("|")[0] for key in run]
    return next((each for each in row if [key.split("|")[0] for key in each] == points), None)

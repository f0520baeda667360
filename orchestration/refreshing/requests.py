"""What automation asks for, in an order: pending partitions, and runs of those that are ready."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.run_plans import RunPlan, plan_runs

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph


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

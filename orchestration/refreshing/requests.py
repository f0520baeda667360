"""What automation asks for, in an order: pending partitions, and runs of those that are ready."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.run_plans import RunPlan, plan_runs

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

Parts = Mapping[dg.AssetKey, set[str | None]]


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
        """Plan runs for the assets that wait for nothing, in the graph's order.

        Summaries (no partitions) take along those that come after them alone: leaderboard,
        champions and page are one run, as in the daemon. They do not ride with partitions: what
        is still to be asked for would have them run twice, and Dagster's conditions cannot tell
        that a summary of many partitions saw all of them.
        """
        order = [key for key in self.graph.toposorted_asset_keys if key in self.wanted]
        waits_for = {key: self._ancestors(key) & self.wanted.keys() for key in order}
        ready = [key for key in order if not waits_for[key]]
        for plan in plan_runs(self.graph, {key: self.wanted[key] for key in ready}):
            is_summary = plan.keys is None
            yield replace(plan, riders=self._riders(plan, waits_for)) if is_summary else plan

    def _riders(
        self, plan: RunPlan, waits_for: Mapping[dg.AssetKey, set[dg.AssetKey]]
    ) -> tuple[dg.AssetKey, ...]:
        """What may come after a plan's assets in its run: steps follow their own parents alone."""
        riders: list[dg.AssetKey] = []
        for key, waited in waits_for.items():
            node, there = self.graph.get(key), {*plan.assets, *riders}
            before = there & node.parent_keys
            seen = before.union(*(waits_for[each] for each in before))
            if node.partitions_def is None and before and waited <= seen and waited <= there:
                riders.append(key)
        return tuple(riders)

    def settle(self, plan: RunPlan, failed: Parts) -> None:
        """Take note that a run is over; `failed` is what it has not materialized, by asset.

        Riders that are not named there were not come to, because something before them failed: they
        are as wanted as before, and run without it.
        """
        for key, parts in failed.items():
            done = plan.parts_of(key)
            self.wanted[key] = self.wanted[key] - done
            if not self.wanted[key]:
                del self.wanted[key]
            self.failed[key] = (self.failed.get(key, set()) - done) | parts

    def _ancestors(self, key: dg.AssetKey) -> set[dg.AssetKey]:
        return set(self.graph.get_ancestor_asset_keys(key)) - {key}

"""Points of a grid (expert set × coefficient) as a run gets them."""

from collections.abc import Iterable, Mapping

import dagster as dg


def point_of(key: str) -> tuple[str, str]:
    """Return a partition key's expert set and coefficient."""
    assert isinstance(key, dg.MultiPartitionKey)
    dimensions = key.keys_by_dimension
    return dimensions["experts"], dimensions["coefficient"]


def group_by_set(keys: Iterable[str]) -> Mapping[str, Mapping[str, dg.MultiPartitionKey]]:
    """Map expert sets to coefficients to partition keys; a backfill's run may hold several sets."""
    groups: dict[str, dict[str, dg.MultiPartitionKey]] = {}
    for key in keys:
        expert_set, coefficient = point_of(key)
        assert isinstance(key, dg.MultiPartitionKey)
        groups.setdefault(expert_set, {})[coefficient] = key
    return groups

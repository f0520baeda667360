"""What a refresh has done, and what is left, asset by asset."""

from dataclasses import dataclass, field


@dataclass
class AssetCount:
    """An asset count holds its partitions: made by this refresh, asked for in vain, and the others.

    `missing` were never made, what `stale` ones come from has changed since, and `elsewhere` are
    being made by runs of others.
    """

    live: int
    rerun: set[str | None] = field(default_factory=set)
    failed: set[str | None] = field(default_factory=set)
    missing: set[str | None] = field(default_factory=set)
    stale: set[str | None] = field(default_factory=set)
    elsewhere: set[str | None] = field(default_factory=set)

    @property
    def up_to_date(self) -> int:
        """Live partitions that were as they should be before."""
        return self.live - len(self.rerun | self.failed | self.late)

    @property
    def late(self) -> set[str | None]:
        """Partitions that are not as they should be now, but for those that failed."""
        return (self.missing | self.stale | self.elsewhere) - self.failed


@dataclass
class RefreshReport:
    """A refresh report says what was done, in so many Dagster `runs`, and what people must know.

    `daemon` says that a Dagster daemon works on the instance too, `others` how many unfinished runs
    are not this refresh's.
    """

    counts: dict[str, AssetCount]
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list[str])
    runs: int = 0
    seconds: float = 0.0

    daemon: bool = False
    others: int = 0

    @property
    def rerun(self) -> int:
        """Partitions that were materialized, over all assets."""
        return sum(len(count.rerun) for count in self.counts.values())

    @property
    def late(self) -> int:
        """Partitions that are not as they should be, over all assets, but for those that failed."""
        return sum(len(count.late) for count in self.counts.values())

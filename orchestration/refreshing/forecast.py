"""`ronghe refresh --dry-run`: what a refresh would make, how large, and how long it would take.

Sizes and seconds are those of earlier materializations of the same asset, or of its kind. Where
there are none, the size is that of the files that will be pulled, or of a base that a champion is
as large as; seconds are not guessed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from assets.work import names
from orchestration.refreshing.standing import Standing

MOST_EVENTS = 200
"""Earlier materializations of an asset that are looked at: the last ones."""


@dataclass(frozen=True)
class Forecast:
    """What one asset would cost: partitions, bytes that are written, seconds of work.

    Bytes and seconds are None where no earlier run tells.
    """

    asset: str
    partitions: int
    nbytes: int | None
    seconds: float | None


@dataclass(frozen=True)
class Measured:
    """Means of one partition over earlier materializations; None where none was measured."""

    nbytes: float | None
    seconds: float | None


def forecast(
    instance: dg.DagsterInstance,
    standing: Standing,
    virtual: Collection[str],
    sizes: Mapping[str, Mapping[str | None, int]] | None = None,
) -> list[Forecast]:
    """Work out what it costs to make all that is missing or stale; assets without any are left out.

    Assets in `virtual` write nothing: their candidates are planned and scored. `sizes` holds bytes
    of partitions (None: of an asset without any) for assets that no earlier run tells of.
    """
    partitions = {
        key.to_user_string(): standing.missing[key] | standing.stale[key]
        for key in standing.missing
    }
    wanted = {asset: len(each) for asset, each in partitions.items() if each}
    known = {asset: measured(_events(instance, asset)) for asset in wanted}
    of_kind: dict[str, list[Measured]] = {}
    for asset, each in known.items():
        of_kind.setdefault(names.kind_of(asset), []).append(each)
    for asset, size in (sizes or {}).items():
        own = [size.get(partition) for partition in partitions.get(asset, ())]
        there = [nbytes for nbytes in own if nbytes is not None]
        if asset in known and known[asset].nbytes is None and len(there) == len(own):
            known[asset] = replace(known[asset], nbytes=sum(there) / len(there))
    return [
        _forecast(asset, count, known[asset], of_kind[names.kind_of(asset)], asset in virtual)
        for asset, count in wanted.items()
    ]


def measured(events: Sequence[tuple[str, str | None, Mapping[str, Any]]]) -> Measured:
    """Average what was measured, from (run id, partition, metadata) of materializations.

    The seconds of a merge are those of its whole expert set, told by each of its coefficients; so
    equal seconds of one set in one run count once.
    """
    sizes = [sum(_numbers(metadata, "bytes")) for _, _, metadata in events]
    groups: dict[tuple[str, str, float], int] = {}
    counted = 0
    for run, partition, metadata in events:
        seconds = sum(_numbers(metadata, "seconds"))
        if metadata and (seconds or metadata.get("memoized") is not True):
            expert_set = (partition or "").split("|")[-1]
            groups[run, expert_set, seconds] = 1
            counted += 1
    told = any(_numbers(metadata, "seconds") for _, _, metadata in events)
    total = sum(seconds for _, _, seconds in groups)
    return Measured(
        sum(sizes) / len(sizes) if sizes else None,
        total / counted if told and counted else None,
    )


def _numbers(metadata: Mapping[str, Any], name: str) -> list[float]:
    """The values of a name, also of several suites: `seconds`, `zh: seconds`."""
    return [
        float(value)
        for key, value in metadata.items()
        if (key == name or key.endswith(f": {name}")) and isinstance(value, int | float)
    ]


def _forecast(
    asset: str, count: int, own: Measured, kind: Sequence[Measured], virtual: bool
) -> Forecast:
    nbytes = own.nbytes if own.nbytes is not None else _mean([each.nbytes for each in kind])
    seconds = own.seconds if own.seconds is not None else _mean([each.seconds for each in kind])
    return Forecast(
        asset,
        count,
        0 if virtual else None if nbytes is None else round(count * nbytes),
        None if seconds is None else count * seconds,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _events(
    instance: dg.DagsterInstance, asset: str
) -> list[tuple[str, str | None, dict[str, Any]]]:
    key = dg.AssetKey.from_user_string(asset)
    records = instance.fetch_materializations(key, limit=MOST_EVENTS).records
    return [
        (
            record.run_id,
            record.partition_key,
            {name: value.value for name, value in record.asset_materialization.metadata.items()},
        )
        for record in records
        if record.asset_materialization is not None
    ]

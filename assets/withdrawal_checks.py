"""The check that a model, or what was made from it, rests on nothing withdrawn.

An asset reports it with each materialization, partition by partition; `ronghe withdraw` reports it
for what is there already. It holds nothing up: what is withdrawn is told, and the champions see to
themselves (assets/work/records/demotion.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.checks import evaluations
from assets.frame.key_names import plain_key
from assets.frame.run_settings import RunSettings
from assets.work import names
from assets.work.records.withdrawal import Withdrawal, rests_on, told, withdrawals

if TYPE_CHECKING:
    from resources.store import ArtifactStore

CHECK = "rests_on_nothing_withdrawn"
Found = Mapping[str | None, Sequence[Withdrawal]]
"""What is withdrawn behind each partition of an asset; None: it has no partitions."""


def spec(asset: str, partitions: dg.PartitionsDefinition | None = None) -> dg.AssetCheckSpec:
    """Return the check of one asset, to be declared with it under its plain key."""
    return dg.AssetCheckSpec(
        CHECK,
        asset=plain_key(dg.AssetKey(asset.split("/"))),
        partitions_def=partitions,
        description="Neither it nor anything that it was made from was withdrawn"
        " (`ronghe withdraw`).",
    )


def found_in(store: "ArtifactStore", asset: str, keys: Iterable[str | None]) -> Found:
    """Return what is withdrawn behind partitions of an asset, those with nothing left out."""
    marks = withdrawals(store)
    if not marks:
        return {}
    wanted = list(keys)
    refs = names.refs_of(store, asset, wanted)
    digests = {key: refs[key].digest for key in wanted if key in refs}
    resting = rests_on(store, digests.values(), marks)
    return {key: resting[digest] for key, digest in digests.items() if digest in resting}


def check_partitions(
    context: dg.AssetExecutionContext, settings: RunSettings, keys: Sequence[str]
) -> dg.AssetCheckResult:
    """Look at the partitions that a run has made, and report each for itself."""
    asset = context.asset_key
    found = found_in(settings.store(), "/".join(asset.path), map(str, keys))
    problems = {str(key): told(found.get(str(key), ())) for key in keys}
    inner: Any = context  # whose annotation knows no evaluation of a check
    if not context.has_partition_key:
        for each in evaluations(context.instance, asset, CHECK, problems, run=context.run.run_id):
            inner.log_event(each)
    return result({key: told(each) for key, each in found.items()})


def check_whole(store: "ArtifactStore", asset: str) -> dg.AssetCheckResult:
    """Look at an asset that has no partitions."""
    return result({key: told(each) for key, each in found_in(store, asset, [None]).items()})


def result(problems: Mapping[str | None, str]) -> dg.AssetCheckResult:
    """Return what Dagster is told of one run's partitions."""
    lines = [f"{key}: {text}" if key is not None else text for key, text in problems.items()]
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"problems": "; ".join(lines) or "none"},
    )

"""The check in Dagster that nothing withdrawn is behind an asset: in a run, and after it."""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.checks import evaluations
from assets.frame.batches import each_partition
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.withdrawal_checks import CHECK, check_partitions, check_whole, found_in, spec
from resources.store import ArtifactStore
from tests.assets.work.made_up_store import ScoredStore

KEYS = ("e1", "e2")
WHY = "trained on the test items"


def evaluated(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> Any:
    """The last evaluation of a partition, as Dagster's page shows it."""
    check = dg.AssetCheckKey(key, CHECK)
    records = instance.event_log_storage.get_asset_check_execution_history(check, limit=20)
    found = [each.evaluation for each in records if each.evaluation is not None]
    return next(each for each in found if each.partition == partition)


def test_a_run_reports_each_partition_and_withdraw_reports_what_is_there(tmp_path: Path) -> None:
    made = ScoredStore(tmp_path)
    for name in KEYS:
        made.store_model(name)
    partitions = dg.StaticPartitionsDefinition(KEYS)

    @team_asset(
        "model",
        dg.AutomationCondition.eager(),
        group="models",
        description="models",
        partitions=partitions,
        one_run=True,
        checks=[spec("model", partitions)],
    )
    def model(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        def check(keys: Any) -> dg.AssetCheckResult:
            return check_partitions(context, settings, keys)

        return each_partition(context, lambda name: (made.digests[name], {}), check=check)

    made.store.marks.withdraw(made.digests["e1"], WHY, "e1")
    settings = RunSettings(store_uri=made.store.uri, catalog="team", catalog_folder=str(tmp_path))
    tags = {
        "dagster/asset_partition_range_start": "e1",
        "dagster/asset_partition_range_end": "e2",
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [model], instance=instance, resources={"settings": settings}, tags=tags
        )
        assert result.success
        key = dg.AssetKey("model")
        bad, good = (evaluated(instance, key, name) for name in KEYS)
        assert (bad.passed, good.passed) == (False, True)
        assert WHY in bad.metadata["problems"].value
        assert not bad.blocking
        for event in evaluations(instance, key, CHECK, {"e1": "", "e2": WHY}):
            instance.report_runless_asset_event(event)
        assert evaluated(instance, key, "e1").passed
        assert not evaluated(instance, key, "e2").passed


def test_what_has_no_partitions_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    made = ScoredStore(tmp_path)
    made.store_model("e1")
    store: ArtifactStore = made.store
    store.point("ties/step/first", None, "model", made.digests["e1"])
    assert check_whole(store, "ties/step/first").passed
    assert found_in(store, "model", KEYS) == {}
    store.marks.withdraw(made.digests["e1"], WHY)
    result = check_whole(store, "ties/step/first")
    assert not result.passed
    assert WHY in str(result.metadata["problems"])
    assert set(found_in(store, "model", KEYS)) == {"e1"}

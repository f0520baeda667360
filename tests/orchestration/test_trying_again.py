"""What failed of something that passes is asked for again after a while, and nothing else is."""

import time

import dagster as dg
import pytest

from assets.frame.failures import clear_failures
from assets.frame.passing import MAY_PASS, noted_passing
from merge_ops.errors import CheckpointError, RongheError
from orchestration import trying_again
from orchestration.daemon_sensor import SENSOR, RefreshSensor
from orchestration.trying_again import FIRST_WAIT, SENSOR_NAME, to_try_again
from resources.errors import ResourceError, StoreAddressError, StoreUnreachableError

KEY, PARTS = dg.AssetKey("merged"), dg.StaticPartitionsDefinition(["a", "b"])
AWAY = StoreUnreachableError("no answer")


class Catalog:
    """One asset of two partitions; `fault` is what a run of it raises."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.fault = instance, None
        self.definitions = dg.Definitions(assets=[self._asset()], sensors=[RefreshSensor()])
        self.graph = self.definitions.resolve_asset_graph()

    def _asset(self) -> dg.AssetsDefinition:
        @dg.asset(key=KEY, partitions_def=PARTS)
        @clear_failures()
        @noted_passing
        def merged() -> dg.MaterializeResult:
            if self.fault is not None:
                raise self.fault
            return dg.MaterializeResult()

        return merged

    def run(self, partition: str, fault: Exception | None, sensor: str = SENSOR) -> float:
        """Run a partition as the daemon's sensor asks for it; when it ended."""
        self.fault = fault
        result = self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[KEY],
            partition_key=partition,
            tags={SENSOR_NAME: sensor},
            raise_on_error=False,
        )
        assert result.success == (fault is None)
        return time.time()

    def again(self, after: float) -> set[str | None]:
        return to_try_again(self.instance, self.graph, SENSOR, after).get(KEY, set())


@pytest.fixture
def catalog(instance: dg.DagsterInstance) -> Catalog:
    return Catalog(instance)


def test_each_further_try_waits_longer_and_success_ends_them(catalog: Catalog) -> None:
    ended = catalog.run("b", AWAY)
    assert catalog.again(ended) == set()
    assert catalog.again(ended + FIRST_WAIT) == {"b"}
    ended = catalog.run("b", AWAY)
    assert catalog.again(ended + FIRST_WAIT) == set()
    assert catalog.again(ended + 2 * FIRST_WAIT) == {"b"}
    catalog.run("a", None)
    assert catalog.again(ended + 2 * FIRST_WAIT) == {"b"}
    catalog.run("b", None, sensor="a person")
    assert catalog.again(ended + 9 * FIRST_WAIT) == set()


@pytest.mark.parametrize(
    ("fault", "tried"),
    [
        (AWAY, True),
        (StoreAddressError("is no folder"), True),
        (CheckpointError("cannot be read"), False),
        (ResourceError("no such model"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_what_passes_is_tried_again(
    catalog: Catalog, fault: RongheError | ResourceError | Exception, tried: bool
) -> None:
    ended = catalog.run("a", fault)
    (run,) = catalog.instance.get_runs()
    assert (run.tags.get(MAY_PASS) == "true") == tried
    assert catalog.again(ended + FIRST_WAIT) == ({"a"} if tried else set())


def test_the_sensor_asks_again_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying_again, "FIRST_WAIT", 0.0)
    catalog.run("a", AWAY)
    repository = catalog.definitions.get_repository_def()

    def asked() -> list[str | None]:
        context = dg.build_sensor_context(catalog.instance, repository_def=repository)
        tick = repository.get_sensor_def(SENSOR).evaluate_tick(context)
        return [request.partition_key for request in tick.run_requests or ()]

    assert asked() == ["a"]
    catalog.run("a", None)
    assert asked() == []

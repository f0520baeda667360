"""A partition that memory fails is one failure: its neighbours are made, and it is told once."""

from typing import Any

import dagster as dg
import pytest

from assets.frame.batches import FAILED, Report, each_partition
from assets.frame.failures import RETRY_CRASHES, clear_failures
from merge_ops.children.limited_child import LimitedChild

PARTS = dg.StaticPartitionsDefinition(["a", "b", "c"])


def of_a_child() -> None:
    """A limited child that takes more than it may, as a model that is loaded does."""
    with LimitedChild("tests.child_programs", memory=256 << 20, cpu_seconds=30) as child:
        child.ask({"do": "memory"}, "loads model x")


def of_python() -> None:
    raise MemoryError("a buffer of 3 GiB")


def of_torch() -> None:
    raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")


@pytest.mark.parametrize("fails", [of_python, of_torch, of_a_child])
def test_memory_that_is_not_there_is_one_failure_of_one_partition(fails) -> None:
    tried: list[str] = []

    @dg.asset(
        partitions_def=PARTS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRY_CRASHES,
    )
    @clear_failures()
    def built(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        def make(key: str) -> Report:
            tried.append(key)
            if key == "b":
                fails()
            return f"version of {key}", {}

        return each_partition(context, make)

    with dg.instance_for_test() as instance:
        tags = {
            "dagster/asset_partition_range_start": "a",
            "dagster/asset_partition_range_end": "c",
        }
        result = dg.materialize([built], instance=instance, tags=tags, raise_on_error=False)
        assert not result.success
        assert tried == ["a", "b", "c"], "once each"
        assert instance.get_materialized_partitions(built.key) == {"a", "c"}
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        data = failure.step_failure_data.user_failure_data
        failed: Any = data.metadata[FAILED].value
        assert set(failed) == {"b"}
        assert "memory" in failed["b"]

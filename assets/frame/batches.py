"""The partitions of one run, each made, reported and, where it fails, failed for itself.

Dagster gives all partitions of a run one data version, and one end. Here each has its own: what
comes after a partition runs when that partition's version changed, however many were made beside
it, and one that cannot be made stops no neighbour.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from assets.frame.dagster_internals import ALREADY_REPORTED, multi_partition_tags
from assets.frame.data_versions import DATA_VERSION
from assets.frame.failures import RETRY_CRASHES, is_of_the_store, is_ours, message_of
from assets.frame.passing import may_pass, note_passing
from merge_ops.errors import RongheError

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
MORE_RANGES = "ronghe/more_partition_ranges"
"""Tag of a run with further ranges of partitions: JSON, pairs of first and last key. Dagster's own
two tags name one range, and partitions that a change touches seldom are neighbours."""
FAILED = "partitions that failed"
"""Metadata of a run's failure: the message of each partition."""
GIVEN = "dagster/data_version_is_user_provided"


class HeldUpError(RongheError):
    """A partition whose inputs were to be made in the same run, and could not be."""


Report = tuple[str, Mapping[str, Any]]
"""What is told of a partition: its data version, and metadata."""


def range_tags(ranges: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the tags of a run of these ranges of partitions, each by first and last key."""
    (first, last), *more = ranges
    tags = {RANGE_START: first, RANGE_END: last}
    return {**tags, MORE_RANGES: json.dumps(more, ensure_ascii=False)} if more else tags


def keys_of(context: dg.OpExecutionContext, definition: dg.PartitionsDefinition) -> list[str]:
    """List the partitions that a run of an asset or a check is for, in order and each once."""
    keys = [*context.partition_keys]
    more = context.run.tags.get(MORE_RANGES)
    if more is not None:
        with dg.partition_loading_context(dynamic_partitions_store=context.instance):
            for first, last in json.loads(more):
                keys += between(definition, first, last)
    return list(dict.fromkeys(keys))


def between(definition: dg.PartitionsDefinition, first: str, last: str) -> Sequence[str]:
    """List the partitions of one range; of a grid, the rectangle between both."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        ends = [definition.get_partition_key_from_str(each) for each in (first, last)]
        first, last = ends
    return definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))


def goes_on(context: dg.OpExecutionContext, asset: dg.AssetKey) -> bool:
    """Return whether the run of a step is also for assets that depend on `asset`."""
    selected = context.run.asset_selection or set()
    return bool(selected & context.job_def.asset_layer.asset_graph.get(asset).child_keys)


def _held_up(context: dg.AssetExecutionContext, keys: Sequence[str]) -> dict[str, str]:
    """What stops partitions of a run in which assets before this one were made too, by partition.

    Those that could not be made are not made here either, nor are those that a check of theirs
    found unsound. Where the assets before were made by another run, the conditions have seen to it.
    """
    held: dict[str, str] = {}
    selected, kinds = context.run.asset_selection or set(), dg.DagsterEventType
    for parent in selected & {*context.assets_def.dependency_keys}:
        events = _logged(context, kinds.ASSET_MATERIALIZATION)
        made = {each.partition for each in events if each.asset_key == parent}
        checks = [e.event_specific_data for e in _logged(context, kinds.ASSET_CHECK_EVALUATION)]
        unsound = {
            each.partition
            for each in checks
            if each.asset_key == parent and each.blocking is not False and not each.passed
        }
        name = parent.to_user_string()
        for key in map(str, keys):
            if key not in made:
                held[key] = f"{name} of this partition failed"
            elif key in unsound:
                held[key] = f"a check of {name} failed"
    return held


def _logged(context: dg.AssetExecutionContext, kind: dg.DagsterEventType) -> list[Any]:
    entries: Any = context.instance.all_logs(context.run.run_id, of_type=kind)
    return [each.get_dagster_event() for each in entries]


class Batch:
    """A batch tells Dagster of each partition of one asset's run, and keeps what failed.

    `look` is called with the partitions that were made when others have failed: the run then ends
    before the steps after it, among them the asset's checks. `check` looks at them in any case, and
    its result is the asset's own.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        look: Callable[[Sequence[str]], object] | None = None,
        check: Callable[[Sequence[str]], dg.AssetCheckResult] | None = None,
    ) -> None:
        definition = context.assets_def.partitions_def
        assert definition is not None
        wanted = keys_of(context.op_execution_context, definition)
        held = _held_up(context, wanted)
        self.keys = [key for key in wanted if str(key) not in held]
        self._context = context
        self._look, self._check = look, check
        self._made: list[str] = []
        self._failed: dict[str, Exception] = {
            key: HeldUpError(reason) for key, reason in held.items()
        }

    @contextmanager
    def part(self, *keys: str) -> Iterator[None]:
        """Keep a failure to make these partitions, and go on with the others.

        What a store that cannot be reached or answers wrongly raises, and `dg.Failure`s, which are
        about the run, are raised.
        """
        try:
            yield
        except dg.Failure:
            raise
        except Exception as error:
            if is_of_the_store(error):
                raise
            self._failed.update(dict.fromkeys(map(str, keys), error))

    def report(self, key: str, data_version: str, metadata: Mapping[str, Any]) -> None:
        """Tell Dagster that a partition is made, under a data version of its own."""
        tags = {DATA_VERSION: data_version, GIVEN: "true", **multi_partition_tags(key)}
        self._context.log_event(
            dg.AssetMaterialization(
                self._context.asset_key, partition=key, metadata=metadata, tags=tags
            )
        )
        self._made.append(str(key))

    def result(self) -> dg.MaterializeResult:
        """End the run. Raises `dg.Failure` with one line for each partition that failed.

        It is tried again, as other crashes are, where one failed by no error of ours.
        """
        if not self._failed:
            return self._end()
        context, again = self._context, not all(map(is_ours, self._failed.values()))
        last_try = not again or context.retry_number >= RETRY_CRASHES.max_retries
        messages = {key: message_of(error) for key, error in self._failed.items()}
        total = len(self._failed) + len(self._made)
        lines = [f"{key}: {message}" for key, message in messages.items()]
        first = next(filter(may_pass, self._failed.values()), next(iter(self._failed.values())))
        text = "\n".join([f"{len(messages)} of {total} partitions failed", *lines])
        if last_try and self._made and goes_on(context.op_execution_context, context.asset_key):
            context.log.error(text)  # what comes after, in this run, fails for these partitions
            if may_pass(first):
                note_passing(context)
            return self._end()
        if self._look is not None and self._made:
            self._look(self._made)
        raise dg.Failure(
            text, metadata={FAILED: dg.MetadataValue.json(messages)}, allow_retries=again
        ) from first

    def _end(self) -> dg.MaterializeResult:
        checks = [self._check(self._made)] if self._check is not None else []
        return dg.MaterializeResult(metadata={ALREADY_REPORTED: True}, check_results=checks)


def each_partition(
    context: dg.AssetExecutionContext,
    make: Callable[[str], Report],
    look: Callable[[Sequence[str]], object] | None = None,
    check: Callable[[Sequence[str]], dg.AssetCheckResult] | None = None,
) -> dg.MaterializeResult:
    """Make and report the partitions of a run one by one."""
    batch = Batch(context, look, check)
    for key in batch.keys:
        with batch.part(key):
            batch.report(key, *make(key))
    return batch.result()

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

from assets.dagster_internals import ALREADY_REPORTED, multi_partition_tags
from assets.failures import is_of_the_store, is_ours, message_of

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
MORE_RANGES = "ronghe/more_partition_ranges"
"""Tag of a run with further ranges of partitions: JSON, pairs of first and last key. Dagster's own
two tags name one range, and partitions that a change touches seldom are neighbours."""
FAILED = "partitions that failed"
"""Metadata of a run's failure: the message of each partition."""
DATA_VERSION, GIVEN = "dagster/data_version", "dagster/data_version_is_user_provided"

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
        for first, last in json.loads(more):
            keys += between(definition, first, last)
    return list(dict.fromkeys(keys))


def between(definition: dg.PartitionsDefinition, first: str, last: str) -> Sequence[str]:
    """List the partitions of one range; of a grid, the rectangle between both."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        ends = [definition.get_partition_key_from_str(each) for each in (first, last)]
        first, last = ends
    return definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))


class Batch:
    """A batch tells Dagster of each partition of one asset's run, and keeps what failed.

    `look` is called with the partitions that were made when others have failed: the run then ends
    before the steps after it, among them the asset's checks.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        look: Callable[[Sequence[str]], object] | None = None,
    ) -> None:
        definition = context.assets_def.partitions_def
        assert definition is not None
        self.keys = keys_of(context.op_execution_context, definition)
        self._context = context
        self._look = look
        self._made: list[str] = []
        self._failed: dict[str, Exception] = {}

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
            return dg.MaterializeResult(metadata={ALREADY_REPORTED: True})
        if self._look is not None and self._made:
            self._look(self._made)
        messages = {key: message_of(error) for key, error in self._failed.items()}
        total = len(self._failed) + len(self._made)
        raise dg.Failure(
            "\n".join(
                [
                    f"{len(messages)} of {total} partitions failed",
                    *(f"{key}: {message}" for key, message in messages.items()),
                ]
            ),
            metadata={FAILED: dg.MetadataValue.json(messages)},
            allow_retries=not all(map(is_ours, self._failed.values())),
        ) from next(iter(self._failed.values()))


def each_partition(
    context: dg.AssetExecutionContext,
    make: Callable[[str], Report],
    look: Callable[[Sequence[str]], object] | None = None,
) -> dg.MaterializeResult:
    """Make and report the partitions of a run one by one."""
    batch = Batch(context, look)
    for key in batch.keys:
        with batch.part(key):
            batch.report(key, *make(key))
    return batch.result()

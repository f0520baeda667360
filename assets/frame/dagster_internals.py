"""Every private name of Dagster that this project uses; no other module imports one.

Dagster changes them without notice, so its version is pinned. Each stands here for one need:

- AssetCheckTarget ties an evaluation of a check to the materialization that was checked. Without
  it, a check of one partition in a run of several belongs to no partition.
- AssetDaemonCursor, serialize_value and deserialize_value keep what the conditions saw last, so
  that `ronghe refresh` goes on where it stopped, as the daemon does.
- ALREADY_REPORTED, in an output's metadata, says that the step has logged the materializations of
  its partitions itself, each with a data version of its own; multi_partition_tags are what Dagster
  finds a grid's partitions by.
- DagsterSqliteStorage and SqliteEventLogStorage (with INDEX_SHARD, the database of all runs, and
  ConfigurableClassData) are what a refresh keeps open, where Dagster opens them for each event.
- AutomationConditionEvaluator is what a refresh asks the conditions by.
- AutomationTickEvaluationContext, cursor_from_text and cursor_to_text are what Dagster's own sensor
  evaluates conditions by; ours plans other runs.
- InstanceRef opens an instance with settings that hold for one process alone. CheckError is what it
  raises, among others, for a dagster.yaml that is none.
- KnownPartitions are the dynamic partitions of an instance, each list read once: conditions ask for
  them thousands of times in one look.
- interrupts sets the handlers of signals around each step, which a refresh has to hear first.
- WorkspaceProcessContext, ModuleTarget and WorkspaceFileTarget are what Dagster's page is made of;
  its own command has no place for a guard before it.
- AssetGraph and UnresolvedAssetJobDefinition are named in annotations.
"""

from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as AssetCheckTarget,
)
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.automation_tick_evaluation_context import (
    AutomationTickEvaluationContext,
)
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import (
    AutomationConditionEvaluator,
)
from dagster._core.definitions.partitions.utils.multi import (
    MultiPartitionKey,
    get_tags_from_multi_partition_key,
)
from dagster._core.definitions.source_asset import (
    SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as ALREADY_REPORTED,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.instance.ref import InstanceRef
from dagster._core.instance.types import CachingDynamicPartitionsLoader as KnownPartitions
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME as INDEX_SHARD,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor as cursor_from_text,
)
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_to_instigator_serialized_cursor as cursor_to_text,
)
from dagster._serdes import ConfigurableClassData
from dagster._utils import interrupts
from dagster_shared.check import CheckError
from dagster_shared.serdes import deserialize_value, serialize_value
from dagster_shared.serdes.errors import DeserializationError

__all__ = [
    "ALREADY_REPORTED",
    "INDEX_SHARD",
    "AssetCheckTarget",
    "AssetDaemonCursor",
    "AssetGraph",
    "AutomationConditionEvaluator",
    "AutomationTickEvaluationContext",
    "CheckError",
    "ConfigurableClassData",
    "DagsterSqliteStorage",
    "DeserializationError",
    "InstanceRef",
    "KnownPartitions",
    "ModuleTarget",
    "SqliteEventLogStorage",
    "UnresolvedAssetJobDefinition",
    "WorkspaceFileTarget",
    "WorkspaceProcessContext",
    "cursor_from_text",
    "cursor_to_text",
    "deserialize_value",
    "interrupts",
    "multi_partition_tags",
    "serialize_value",
]


def multi_partition_tags(key: str) -> dict[str, str]:
    """Return the tags by which Dagster finds a partition of a grid; none for other partitions."""
    is_multi = isinstance(key, MultiPartitionKey)
    return dict(get_tags_from_multi_partition_key(key)) if is_multi else {}

"""Every private name of Dagster that this project uses; no other module imports one.

Dagster changes them without notice, so its version is pinned. Each stands here for one need:

- AssetCheckTarget ties an evaluation of a check to the materialization that was checked. Without
  it, a check of one partition in a run of several belongs to no partition.
- AssetDaemonCursor, serialize_value and deserialize_value keep what the conditions saw last, so
  that `ronghe refresh` goes on where it stopped, as the daemon does.
- InstanceRef opens an instance with settings that hold for one process alone.
- WorkspaceProcessContext, ModuleTarget and WorkspaceFileTarget are what Dagster's page is made of;
  its own command has no place for a guard before it.
- AssetGraph and UnresolvedAssetJobDefinition are named in annotations.
"""

from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as AssetCheckTarget,
)
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.instance.ref import InstanceRef
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster_shared.serdes import deserialize_value, serialize_value
from dagster_shared.serdes.errors import DeserializationError

__all__ = [
    "AssetCheckTarget",
    "AssetDaemonCursor",
    "AssetGraph",
    "DeserializationError",
    "InstanceRef",
    "ModuleTarget",
    "UnresolvedAssetJobDefinition",
    "WorkspaceFileTarget",
    "WorkspaceProcessContext",
    "deserialize_value",
    "serialize_value",
]

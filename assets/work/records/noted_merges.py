"""Merges that an endpoint of OpenLineage is told of: begun, done or failed. Knows no Dagster."""

import uuid
from functools import partial
from typing import TYPE_CHECKING

from assets.work.merging.merging import MergedSet, MergeJob, merge_set
from assets.work.records.stored_names import label_of
from resources.outbound import Dataset, LineageEndpoint, RunNote, endpoint_of_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from merge_ops.progress import Progress
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore


def merge_noted(
    store: "ArtifactStore",
    job: MergeJob,
    settings: "StreamSettings",
    progress: "Progress | None",
    run: str,
    warn: "Callable[[str], object]",
    endpoint: LineageEndpoint | None = None,
) -> MergedSet:
    """Merge one set as `merge_set` does, and tell the environment's endpoint, where it has one.

    Each set of a Dagster run is a run of its own, by an id made of both. What was not taken is told
    to `warn`; no merge waits or fails for it. Raises as `merge_set` does.
    """
    endpoint = endpoint or endpoint_of_environment()
    if endpoint is None:
        return merge_set(store, job, settings, progress)
    of_set = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run} {job.asset} {job.expert_set}"))
    note = partial(RunNote, run=of_set, job=str(job.asset))
    names = dict.fromkeys([job.base, *(job.expert_set.split("+") if job.expert_set else [])])
    inputs = [Dataset(store.uri, f"model/{name}") for name in names]
    endpoint.send(note("START", inputs=inputs))
    try:
        merged = merge_set(store, job, settings, progress)
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
        endpoint.send(note("FAIL", inputs=inputs, error=told))
        raise
    else:
        used = [Dataset(store.uri, f"model/{name}", d) for name, d in merged.inputs.items()]
        endpoint.send(note("COMPLETE", inputs=used, outputs=_outputs(store, job, merged)))
        return merged
    finally:
        problem = endpoint.wait()
        if problem is not None:
            warn(problem)


def _outputs(store: "ArtifactStore", job: MergeJob, merged: MergedSet) -> list[Dataset]:
    return [
        Dataset(
            store.uri,
            label_of(str(job.asset), job.points[point.coefficient]),
            point.artifact.digest,
        )
        for point in merged.checkpoints
    ]

"""Pulls and changes of champions that an endpoint of OpenLineage is told of. Knows no Dagster.

A pull is a run of `model`, from its source into the store. A change of champion is a run of
`<recipe>/champion`, from the candidate to the champion: done when it is told.
"""

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.records.stored_names import label_of
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.packed_models import MODEL
from assets.work.upstream.pulling import PulledModel, pull_model
from resources.outbound import Dataset, LineageEndpoint, RunNote, endpoint_of_environment

if TYPE_CHECKING:
    from merge_ops.progress import Progress
    from resources.store import ArtifactStore

CHANGES = ("promotion", "rollback", "demotion")
"""Events of champions that change one; a refusal changes nothing."""


def pull_noted(
    store: "ArtifactStore",
    model: UpstreamModel,
    folder: Path,
    run: str,
    base: UpstreamModel | None,
    tell: Callable[[str], None],
    warn: Callable[[str], object],
    progress: "Progress | None" = None,
    endpoint: LineageEndpoint | None = None,
) -> PulledModel:
    """Pull a model as `pull_model` does, and tell the environment's endpoint, where it has one.

    What was not taken is told to `warn`; no pull waits or fails for it. Raises as `pull_model`.
    """
    endpoint = endpoint or endpoint_of_environment()
    if endpoint is None:
        return pull_model(store, model, folder, run, base, tell, progress)
    name = f"{MODEL}/{model.name}"
    of_pull = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run} {name}"))
    note = partial(RunNote, run=of_pull, job=name)
    scheme, _, rest = model.source.rpartition("://")
    source = partial(Dataset, scheme or "file", rest)
    endpoint.send(note("START", inputs=[source()]))
    try:
        pulled = pull_model(store, model, folder, run, base, tell, progress)
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
        endpoint.send(note("FAIL", inputs=[source()], error=told))
        raise
    else:
        made = Dataset(store.uri, name, pulled.artifact.digest)
        endpoint.send(note("COMPLETE", inputs=[source(pulled.revision)], outputs=[made]))
        return pulled
    finally:
        problem = endpoint.wait()
        if problem is not None:
            warn(problem)


def note_change(
    store: "ArtifactStore",
    event: Mapping[str, Any],
    run: str | None = None,
    endpoint: LineageEndpoint | None = None,
) -> str | None:
    """Tell the environment's endpoint of a champion's change, by the event that a webhook gets.

    `run` is the Dagster run that made it, None where a person did. Returns a warning where it was
    not taken; nothing is sent of an event that left no champion, or changed none.
    """
    endpoint = endpoint or endpoint_of_environment()
    champion = event.get("champion")
    if endpoint is None or event.get("event") not in CHANGES or champion is None:
        return None
    asset = names.champion(str(event["recipe"]))
    of_change = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run} {asset}") if run else uuid.uuid4())
    candidate = event.get("candidate") or {}
    parts = [str(candidate[key]) for key in ("coefficient", "experts") if candidate.get(key)]
    made = names.merged_checkpoint(str(event["recipe"]))
    used = Dataset(store.uri, label_of(made, "|".join(parts) or None), str(champion))
    note = partial(RunNote, run=of_change, job=asset, inputs=[used])
    endpoint.send(note("START"))
    endpoint.send(note("COMPLETE", outputs=[Dataset(store.uri, asset, str(champion))]))
    return endpoint.wait()

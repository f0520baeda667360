"""From an upstream source to a checked model in the store. Knows no Dagster."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assets.entries import UpstreamModel
from assets.unpickling import copy_unpickled
from merge_ops.errors import CheckpointError

if TYPE_CHECKING:
    from merge_ops.checkpoint import Checkpoint
    from resources.artifact import Artifact
    from resources.artifact_store import ArtifactStore

MODEL = "model"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class PulledModel:
    """A model in the store. `revision` is what the source called it; `seconds` is wall time."""

    artifact: "Artifact"
    revision: str
    memoized: bool
    seconds: float
    tensors: int
    parameters: int


def revisions(models: list[UpstreamModel], folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The revision of every model that can be reached, and what is wrong with the others.

    `folder` is where relative sources start. A second look at unchanged folders reads no weight.
    """
    from resources.errors import ResourceError
    from resources.model_sources import open_model_source

    found: dict[str, str] = {}
    faults: dict[str, str] = {}
    for model in models:
        try:
            found[model.name] = open_model_source(model.source, folder).revision()
        except ResourceError as error:
            faults[model.name] = str(error)
    return found, faults


def pull_model(
    store: "ArtifactStore", model: UpstreamModel, folder: Path, run: str | None = None
) -> PulledModel:
    """Copy a model into the store unless its revision is there, check its headers, point to it.

    Pickled weights become safetensors first. Raises ResourceError when the source cannot be read,
    CheckpointError when it is no checkpoint or a pickle holds more than tensors; the name
    `model/<name>` then stays where it was.
    """
    from assets.reuse import digests_of
    from resources.model_sources import open_model_source

    started = time.perf_counter()
    source = open_model_source(model.source, folder)
    revision = source.revision()
    ref = store.ref(MODEL, model.name)
    known = ref is not None and ref.fields.get("revision") == revision
    artifact = store.find(MODEL, ref.digest) if ref is not None and known else None
    memoized = artifact is not None
    if artifact is None:
        with store.attempt(MODEL) as attempt:
            copy_unpickled(source, attempt)
            artifact = attempt.publish(licence=model.licence, revision=revision)
    checkpoint = _checked(model, artifact)
    if not memoized and model.kind == "full":
        digests_of(store, checkpoint, artifact.digest)
    store.point(MODEL, model.name, MODEL, artifact.digest, run=run, revision=revision)
    entries = checkpoint.tensors.values()
    counts = (len(entries), sum(entry.count for entry in entries))
    return PulledModel(artifact, revision, memoized, time.perf_counter() - started, *counts)


def open_models(
    store: "ArtifactStore", base: str, experts: Sequence[str]
) -> dict[str, "Checkpoint"]:
    """Open published models by name, from their headers: the base, and its experts.

    An adapter is opened over the base. Raises MissingArtifactError, CheckpointError, and
    CompatibilityError for an adapter that does not fit.
    """
    from merge_ops.adapters import is_adapter, open_adapter
    from merge_ops.checkpoint import open_checkpoint
    from resources.errors import MissingArtifactError

    opened: dict[str, Checkpoint] = {}
    for name in (base, *experts):
        artifact = store.resolve(MODEL, name)
        if artifact is None:
            raise MissingArtifactError(
                f"model '{name}' is not in artifact store {store.uri}; materialize model[{name}]"
                " first (`ronghe refresh` does)"
            )
        source, digest = artifact.source(), artifact.digest
        if is_adapter(artifact.files) and name != base:
            opened[name] = open_adapter(name, opened[base], source, digest)
        else:
            opened[name] = open_checkpoint(name, source, digest)
    return opened


def _checked(model: UpstreamModel, artifact: "Artifact") -> "Checkpoint":
    """A model by its headers, or an adapter without its base. Raises CheckpointError."""
    from merge_ops.adapters import is_adapter, read_adapter
    from merge_ops.checkpoint import open_checkpoint

    if model.kind == "lora":
        if not is_adapter(artifact.files):
            raise CheckpointError(
                f"model '{model.name}' ({model.source}) is listed as a LoRA adapter but its folder"
                f" is none ({' and '.join(ADAPTER_FILES)}); say `kind: full` or name the adapter's"
                " folder"
            )
        return read_adapter(model.name, artifact.source(), artifact.digest).checkpoint
    if is_adapter(artifact.files):
        raise CheckpointError(
            f"model '{model.name}' ({model.source}) is a LoRA adapter; say `kind: lora` and name"
            " its base"
        )
    return open_checkpoint(model.name, artifact.source(), artifact.digest)

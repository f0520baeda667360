"""From an upstream source to a checked model in the store. Knows no Dagster."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work.upstream.distributed import source_of_model
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.packed_models import (
    MODEL,
    PACKED,
    Saving,
    as_it_was,
    pull_packed,
    stored_model,
)
from assets.work.upstream.unpickling import copy_unpickled
from merge_ops.errors import CheckpointError

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel
    from merge_ops.checkpoints import ByteSource, Checkpoint
    from merge_ops.progress import Progress
    from resources.store import Artifact, ArtifactStore, Ref
    from resources.upstream import ModelSource

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class PulledModel:
    """A model in the store. `revision` is what the source called it; `seconds` is wall time.

    `saving` is what packing came to, where it was tried this time.
    """

    artifact: "Artifact"
    revision: str
    memoized: bool
    seconds: float
    tensors: int
    parameters: int
    saving: Saving | None = None


def revisions(models: list[UpstreamModel], folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Look up the revision of every model; of the others, what is wrong with them.

    A model whose entry in the catalog is broken is left as it is, and told as that.
    `folder` is where relative sources start. A second look at unchanged folders reads no weight.
    """
    from resources.errors import ResourceError

    reached: dict[str, str] = {}
    faults: dict[str, str] = {}
    for model in models:
        if model.faults:
            continue
        try:
            source = source_of_model(model, folder)
            reached[model.name] = source.revision()
        except ResourceError as error:
            faults[model.name] = str(error)
    return reached, faults


def pull_model(
    store: "ArtifactStore",
    model: UpstreamModel,
    folder: Path,
    run: str | None = None,
    base: UpstreamModel | None = None,
    tell: Callable[[str], None] | None = None,
    progress: "Progress | None" = None,
) -> PulledModel:
    """Copy a model into the store unless its revision is there, check its headers, point to it.

    Pickled weights become safetensors first. A full expert is packed where its catalog entry or the
    saving says so; `base` is its base's entry, which is pulled before it unless the store has it.
    `tell` hears how much is downloaded, before it is, and `progress` how many bytes came so far.
    Raises ResourceError when the source cannot be read, CheckpointError when it is no checkpoint or
    a pickle holds more than tensors; the name `model/<name>` then stays where it was.
    """
    from assets.work.reuse import digests_of
    from resources.upstream import download_text

    if model.faults:
        raise CheckpointError(f"model '{model.name}' cannot be used: {'; '.join(model.faults)}")
    started = time.perf_counter()
    source = source_of_model(model, folder)
    revision = source.revision()
    ref = store.ref(MODEL, model.name)
    known = ref is not None and ref.fields.get("revision") == revision and _kept_right(model, ref)
    artifact = store.find(ref.kind, ref.digest) if ref is not None and known else None
    memoized, saving = artifact is not None, None
    if artifact is None:
        _check_size(model, source)
        told = download_text(source)
        if tell is not None and told is not None:
            tell(told)
        below = _base_of(store, model, base, folder, run)
        artifact, saving = _pull(store, model, source, below, progress)
    whole = as_it_was(store, artifact)
    checkpoint = _checked(model, whole)
    if not memoized and model.kind == "full":
        digests_of(store, checkpoint, artifact.digest)
    said: dict[str, Any] = {"revision": revision}
    said |= {"licence": model.licence} if model.licence else {}
    said |= {"resolved": resolved} if (resolved := source.resolved()) is not None else {}
    store.point(MODEL, model.name, artifact.kind, artifact.digest, run=run, **said)
    entries = checkpoint.tensors.values()
    counts = (len(entries), sum(entry.count for entry in entries))
    seconds = time.perf_counter() - started
    return PulledModel(artifact, revision, memoized, seconds, *counts, saving)


def kept_note(store: "ArtifactStore", name: str) -> str:
    """Say what the store keeps of a model whose source cannot be reached; "" where it has none.

    What was made of it stays, and merges go on with it.
    """
    ref = store.ref(MODEL, name)
    if ref is None:
        return ""
    which = ref.fields.get("resolved") or ref.fields.get("revision") or ref.digest
    return f"; the store keeps what was pulled of it before ({which}), and merges go on with that"


def _check_size(model: UpstreamModel, source: "ModelSource") -> None:
    """Refuse a download that is larger than the catalog allows, or than the disk has room for.

    Raises ModelSourceError before anything is downloaded. A place that tells no sizes is left to
    whoever downloads from it.
    """
    from resources.errors import ModelSourceError
    from resources.upstream import FarModel

    if not isinstance(source, FarModel) or source.cached() is not None:
        return
    try:
        total = sum(source.sizes().values())
    except ModelSourceError:
        if model.max_size is None:
            return
        raise
    if model.max_size is not None and total > model.max_size:
        raise ModelSourceError(
            f"model '{model.name}' ({source.location}) has {total:,} bytes to download, and"
            f" models.yaml allows {model.max_size:,} (max_size); nothing was downloaded"
        )
    place = next(each for each in (source.kept_in, *source.kept_in.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if total > free:
        raise ModelSourceError(
            f"model '{model.name}' ({source.location}) has {total:,} bytes to download, and {place}"
            f" has {free:,} free; free space, or set {source.variable} to a folder on a larger disk"
        )


def _kept_right(model: UpstreamModel, ref: "Ref") -> bool:
    """Whether a model that is there is kept in the way its catalog entry asks for."""
    return model.store is None or (model.store == "packed") == (ref.kind == PACKED)


def _base_of(
    store: "ArtifactStore",
    model: UpstreamModel,
    base: UpstreamModel | None,
    folder: Path,
    run: str | None,
) -> "StoredModel | None":
    """What a model may be packed against; None where it is to be kept as it is."""
    if model.kind == "lora" or model.store == "full" or base is None:
        return None
    from resources.errors import DamagedArtifactError, MissingArtifactError

    try:
        known = stored_model(store, base.name)
    except (MissingArtifactError, DamagedArtifactError):
        known = None  # a pull makes it again, or says what to do
    return known or pull_model(store, base, folder, run).artifact


def _pull(
    store: "ArtifactStore",
    model: UpstreamModel,
    source: "ModelSource",
    base: "StoredModel | None",
    progress: "Progress | None",
) -> tuple["Artifact", Saving | None]:
    _check_before(model, source)
    if base is not None:
        return pull_packed(store, model, source, base, progress)
    with store.attempt(MODEL) as attempt:
        copy_unpickled(source, attempt, progress)
        return attempt.publish(), None


def _check_before(model: UpstreamModel, source: "ModelSource") -> None:
    """Refuse a local folder for what it is, before any of it is copied. Raises CheckpointError."""
    from merge_ops.checkpoints import FolderSource
    from resources.upstream import FolderModel

    if isinstance(source, FolderModel):
        _refuse(model, FolderSource(source.folder, follow_links=model.follow_links))


def _refuse(model: UpstreamModel, source: "ByteSource") -> None:
    """Raise CheckpointError with the faults of a folder, if it has any."""
    from merge_ops.checkpoints.folders.folder_verdict import read_folder

    faults = read_folder(source).verdict.faults
    if faults:
        raise CheckpointError(f"model '{model.name}' ({model.source}): {'; '.join(faults)}")


def open_models(
    store: "ArtifactStore", base: str, experts: Sequence[str]
) -> dict[str, "Checkpoint"]:
    """Open published models by name, from their headers: the base ("" for none), and its experts.

    An adapter is opened over the base. Raises MissingArtifactError, CheckpointError, and
    CompatibilityError for an adapter that does not fit.
    """
    from merge_ops.checkpoints import open_checkpoint
    from merge_ops.sources import is_adapter, open_adapter
    from resources.errors import MissingArtifactError

    opened: dict[str, Checkpoint] = {}
    for name in filter(None, (base, *experts)):
        artifact = stored_model(store, name)
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


def _checked(model: UpstreamModel, artifact: "StoredModel") -> "Checkpoint":
    """A model by its headers, or an adapter without its base. Raises CheckpointError."""
    from merge_ops.checkpoints import open_checkpoint
    from merge_ops.sources import is_adapter, read_adapter

    if model.kind == "lora":
        if not is_adapter(artifact.files):
            _refuse(model, artifact.source())
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

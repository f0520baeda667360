"""Virtual checkpoints: planned and digested, their bytes made when they are read. Knows no Dagster.

The manifest of one holds what is needed to make it: the concrete recipe with the one coefficient,
and the digests of the models that go in. It says nothing that the plan's digest does not cover: the
recipe calls its models `#1`, `#2`, …, but for those whose names a method draws by.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from assets.work.merging.manifests import ANCESTRY, MAKING, manifest_fields, output_fields
from assets.work.merging.resume import carry_out
from assets.work.upstream.packed_models import MODEL, PACKED, as_it_was
from merge_ops.errors import OutputError
from merge_ops.recipes import Recipe, check_recipe

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.plans import Plan
    from merge_ops.plans.plan import Output
    from merge_ops.progress import Progress
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore

CHECKPOINT = "checkpoint"
MADE_FROM = (MODEL, PACKED, CHECKPOINT)
"""Kinds that a model of a merge can have: pulled, or made by an earlier step."""
MOST_PLANS = 8
"""Recipes whose models a process keeps open, headers alone: those of the sets in hand."""


@dataclass(frozen=True)
class Making:
    """A making is what a virtual checkpoint's manifest says of how it is made.

    `recipe` is a document of a recipe file, `models` the digests behind each of its names: one, or
    those of a base and of the adapters on it. `bytes` are those of the weights when they are there.
    """

    recipe: Mapping[str, Any]
    models: Mapping[str, tuple[str, ...]]
    coefficient: str
    bytes: int


def publish_virtual(
    store: "ArtifactStore", plan: "Plan", models: Mapping[str, "Checkpoint"]
) -> dict[str, "Artifact"]:
    """Publish every coefficient of a plan unwritten; return the artifacts by coefficient.

    `models` are those that the plan's recipe names. What is there already, written or not, stays.
    """
    return {
        coefficient: store.publish_virtual(CHECKPOINT, digest, **fields)
        for coefficient, (digest, fields) in output_fields(plan, models).items()
    }


def making_of(artifact: "Artifact") -> Making:
    """Read from a checkpoint's manifest how it is made; one that is written may not say.

    Raises DamagedArtifactError where the manifest does not say.
    """
    from resources.errors import DamagedArtifactError

    try:
        said = artifact.manifest[MAKING]
        models = {str(name): tuple(map(str, parts)) for name, parts in said["models"].items()}
        return Making(dict(said["recipe"]), models, str(said["coefficient"]), int(said["bytes"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedArtifactError(
            f"{artifact.uri}: the manifest does not say how the checkpoint is made; `ronghe verify"
            " --repair` sets it aside, and the next refresh plans it again"
        ) from error


def bytes_of(artifact: "Artifact") -> int:
    """Return the bytes of a checkpoint, those that it would have where it is virtual."""
    return making_of(artifact).bytes if artifact.virtual else artifact.nbytes


def plan_of(
    store: "ArtifactStore",
    artifact: "Artifact",
    settings: "StreamSettings",
    called: Mapping[str, str] | None = None,
) -> "Plan":
    """Plan a virtual checkpoint again from its manifest, for its one coefficient.

    `called` has names for models by digest, for messages. Raises MissingArtifactError where a model
    is not in the store any more, DamagedArtifactError where the plan is not the one it was: another
    release may have changed the method.
    """
    from merge_ops.plans import plan_merge
    from merge_ops.stream import arithmetic_kind
    from resources.errors import DamagedArtifactError

    making = making_of(artifact)
    recipe = check_recipe(dict(making.recipe), "virtual", f"checkpoint {artifact.digest[:12]}")
    recipe, models = _with_names(recipe, making.models, called or {})
    opened = _opened(store, tuple(models.items()))
    plan = plan_merge(recipe, opened, arithmetic=arithmetic_kind(settings.device))
    (output,) = plan.outputs
    if output.digest != artifact.digest:
        raise DamagedArtifactError(
            f"{artifact.uri}: what its manifest describes has another digest now"
            f" ({str(output.digest)[:12]}): it was planned by another release, or for another kind"
            " of device. `ronghe refresh` plans it anew; to make just this one, use the release"
            f" that planned it (ronghe {artifact.manifest.get('versions', {}).get('ronghe')})"
        )
    return plan


def _with_names(
    recipe: Recipe, models: Mapping[str, tuple[str, ...]], called: Mapping[str, str]
) -> tuple[Recipe, dict[str, tuple[str, ...]]]:
    """The recipe with its numbered models called as people call them, where that is clear."""
    from merge_ops.recipes.document import with_names

    names = {
        name: called[parts[-1]]
        for name, parts in models.items()
        if name.startswith("#") and parts[-1] in called
    }
    after = [names.get(name, name) for name in models]
    if not names or len(set(after)) < len(after):
        return recipe, dict(models)
    return with_names(recipe, names), dict(zip(after, models.values(), strict=True))


def _opened(
    store: "ArtifactStore", models: tuple[tuple[str, tuple[str, ...]], ...]
) -> dict[str, "Checkpoint"]:
    """The models of a merge by name: the same objects for the next candidate of the same set."""
    return dict(_kept_open(store, models))


@lru_cache(maxsize=MOST_PLANS)
def _kept_open(
    store: "ArtifactStore", models: tuple[tuple[str, tuple[str, ...]], ...]
) -> tuple[tuple[str, "Checkpoint"], ...]:
    from merge_ops.checkpoints import open_checkpoint
    from merge_ops.sources import open_adapter

    opened: dict[tuple[str, ...], Checkpoint] = {}
    for name, parts in sorted(models, key=lambda model: len(model[1])):
        for end in range(1, len(parts) + 1):
            stack = parts[:end]
            if stack in opened:
                continue
            model = stored_by_digest(store, parts[end - 1])
            source, called = model.source(), name if end == len(parts) else parts[end - 1][:12]
            opened[stack] = (
                open_checkpoint(called, source, parts[0])
                if end == 1
                else open_adapter(called, opened[parts[: end - 1]], source, parts[end - 1])
            )
    return tuple((name, opened[parts]) for name, parts in models)


def stored_by_digest(store: "ArtifactStore", digest: str) -> "StoredModel":
    """Find a model of a merge by its digest alone. Raises MissingArtifactError."""
    from resources.errors import MissingArtifactError

    for kind in MADE_FROM:
        artifact = store.find(kind, digest)
        if artifact is not None:
            return as_it_was(store, artifact)
    raise MissingArtifactError(
        f"artifact store {store.uri} has no model {digest} any more, from which a virtual"
        " checkpoint is made; `ronghe refresh` pulls the models of the catalog as they are now, and"
        " plans what they make"
    )


def materialize(
    store: "ArtifactStore",
    artifact: "Artifact",
    settings: "StreamSettings | None" = None,
    progress: "Progress | None" = None,
) -> "Artifact":
    """Write a virtual checkpoint, and return it; one that is written is returned as it is.

    The bytes are exactly those that its digest stands for. Raises what `plan_of` raises,
    NonFiniteError where the result is not finite, OutputError where there is no room.
    """
    from merge_ops.stream import StreamSettings, check_settings

    if not artifact.virtual:
        return artifact
    there = store.get(artifact.kind, artifact.digest)
    if not there.virtual:  # somebody else has written it since
        return there
    settings = settings or StreamSettings()
    plan = plan_of(store, there, settings)
    check_settings(plan, settings)
    check_place(store, plan.bytes_written)

    kept = {name: there.manifest[name] for name in (ANCESTRY, MAKING) if name in there.manifest}

    def fields(output: "Output") -> dict[str, Any]:
        return {**manifest_fields(plan), **kept}

    made = carry_out(store, CHECKPOINT, plan, fields, settings, progress)
    return made.artifacts[plan.outputs[0].coefficient]


def check_place(store: "ArtifactStore", nbytes: int) -> None:
    """Raise OutputError where the store's local disk has no room for so many bytes."""
    if not store.uri.startswith("file:"):
        return
    place = Path(unquote(urlsplit(store.uri).path))
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if nbytes > free:
        raise OutputError(
            f"the checkpoint takes {nbytes / 1e9:,.2f} GB, and the disk of artifact store"
            f" {store.uri} has {free / 1e9:,.2f} GB free; free space there (`ronghe gc`), or move"
            " the store"
        )

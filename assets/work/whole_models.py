"""Models as whole checkpoints, which is what can be loaded and scored. Knows no Dagster.

A full model is one as it is. An adapter is merged into its base once for each pair of contents; the
adapter itself stays an adapter in the store, and merges read it from there.
"""

import json
from typing import TYPE_CHECKING

from assets.work.merging import merge_set
from assets.work.packed_models import MODEL, stored_model
from merge_ops.plans.stages import Stages
from merge_ops.recipes.recipe import parse_recipe
from merge_ops.sources.adapters import is_adapter

if TYPE_CHECKING:
    from assets.work.packed_models import StoredModel
    from merge_ops.stream.stream import StreamSettings
    from resources.store import ArtifactStore, Ref

WHOLE_MODEL = "whole_model"


def whole_model(
    store: "ArtifactStore",
    name: str,
    base: str | None,
    settings: "StreamSettings",
    run: str | None = None,
) -> "StoredModel":
    """The checkpoint that a model's name stands for now. MissingArtifactError when it is nothing.

    `base` is the base model of an expert; only adapters need it.
    """
    from resources.errors import MissingArtifactError

    found = {each: stored_model(store, each) for each in (name, base) if each is not None}
    for each, artifact in found.items():
        if artifact is None:
            raise MissingArtifactError(
                f"{MODEL} [{each}] is not in artifact store {store.uri}; materialize it first"
            )
    model = found[name]
    assert model is not None
    if base is None or not is_adapter(model.files):
        return model
    below = found[base]
    assert below is not None
    text = f"merge_method: passthrough\nmodels: [{{model: {json.dumps(name)}}}]"
    stages = Stages((parse_recipe(text, WHOLE_MODEL, WHOLE_MODEL),))
    (merged,) = merge_set(store, stages, base, name, ["default"], settings).checkpoints
    whole = merged.artifact
    made_of = {"adapter": model.digest, "base": base, "base_digest": below.digest}
    store.point(WHOLE_MODEL, name, whole.kind, whole.digest, run=run, **made_of)
    return whole


def live_models(store: "ArtifactStore") -> dict[str | None, "Ref"]:
    """What each model's name stands for as a whole; an adapter whose base or self has changed
    since it was merged stands for nothing that could have scores."""
    models, wholes = store.refs(MODEL), store.refs(WHOLE_MODEL)
    for name, whole in wholes.items():
        own, below = models.get(name), models.get(str(whole.fields.get("base")))
        if own is None or below is None or own.digest != whole.fields.get("adapter"):
            continue
        if below.digest == whole.fields.get("base_digest"):
            models[name] = whole
    return models

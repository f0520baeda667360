"""Models as whole checkpoints, which is what can be loaded and scored. Knows no Dagster.

A full model is one as it is. An adapter is merged into its base once for each pair of contents; the
adapter itself stays an adapter in the store, and merges read it from there.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from assets.work.merging.merging import MergeJob, merge_set
from assets.work.names import table_of
from assets.work.upstream.packed_models import MODEL, stored_model
from merge_ops.recipes import Steps, check_recipe
from merge_ops.sources import is_adapter

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore, Ref

WHOLE_MODEL = "whole_model"


def whole_model(
    store: "ArtifactStore",
    name: str,
    base: str | None,
    settings: "StreamSettings",
    run: str | None = None,
) -> "StoredModel":
    """Open the checkpoint that a model's name stands for now.

    `base` is the base model of an expert; only adapters need it. Raises MissingArtifactError when
    the name stands for nothing.
    """
    from resources.errors import MissingArtifactError

    stored: dict[str, StoredModel] = {}
    for needed in (name, base):
        artifact = stored_model(store, needed) if needed is not None else None
        if artifact is not None and needed is not None:
            stored[needed] = artifact
        elif needed is not None:
            raise MissingArtifactError(
                f"{MODEL} [{needed}] is not in artifact store {store.uri}; materialize it first"
            )
    model = stored[name]
    if base is None or not is_adapter(model.files):
        return model
    written = {"merge_method": "passthrough", "models": [{"model": name}]}
    steps = Steps((check_recipe(written, WHOLE_MODEL, WHOLE_MODEL),))
    job = MergeJob(steps, base, name, {"default": None})
    (merged,) = merge_set(store, job, settings).checkpoints
    whole = merged.artifact
    of_base = stored[base].digest
    made_of: dict[str, Any] = {"adapter": model.digest, "base": base, "base_digest": of_base}
    store.point(WHOLE_MODEL, name, whole.kind, whole.digest, run=run, **made_of)
    return whole


def live_models(
    store: "ArtifactStore", wanted: Iterable[str]
) -> tuple[dict[str | None, "Ref"], dict[str, str]]:
    """Read what each model's name stands for as a whole, and what is wrong with damaged names.

    An adapter whose base or self has changed since it was merged stands for nothing that could have
    scores.
    """
    live = set(wanted)
    plain, merged = table_of(store, MODEL), table_of(store, WHOLE_MODEL)
    models = dict(plain.refs)
    for name, whole in merged.refs.items():
        adapter, base = models.get(name), models.get(str(whole.fields.get("base")))
        if adapter is None or base is None or adapter.digest != whole.fields.get("adapter"):
            continue
        if base.digest == whole.fields.get("base_digest"):
            models[name] = whole
    damaged = {**plain.damaged, **merged.damaged}
    named = {f"{asset} [{name}]" for asset in (MODEL, WHOLE_MODEL) for name in live}
    return models, {name: problem for name, problem in damaged.items() if name in named}

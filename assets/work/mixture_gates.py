"""Gates of a catalog's mixtures of experts, measured on a model of the store. Knows no Dagster.

They are kept in the store under what they were measured from (`gates [KEY]`): a router's rows are
float32 sums, whose last bits differ between machines, and one store gives one result.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from assets.work.virtual_checkpoints import stored_by_digest
from merge_ops.errors import Fault, RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assets.work.gating import Measured
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.recipes import Recipe
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore

    Gates = Mapping[int, NDArray[np.float32]]

GATES, FILE = "gates", "gates.safetensors"


def gates_of_mixture(
    store: "ArtifactStore",
    settings: "StreamSettings",
    recipe: "Recipe",
    models: Mapping[str, "Checkpoint"],
) -> "Gates | None":
    """Return the gates of a recipe that makes a mixture out of prompts; None for all others.

    Raises EvalError where the base cannot be run, RecipeError where it is an adapter,
    StatisticsError where gates are made of embeddings that it lacks.
    """
    step = recipe.moe
    if step is None or not step.needs_prompts:
        return None
    from assets.work.gating import Base, Running, embedded_gates, gates_of, key_of_gates
    from merge_ops.calibration import Prompts
    from merge_ops.stream import choose_device

    model = models[step.base_model]
    if model.made_of or model.digest is None:
        problem = "is an adapter on a base, and gates are measured on one model; merge the two in"
        raise RecipeError(recipe.subject, [Fault("base_model", f"{problem} a document before")])
    folder = stored_by_digest(store, model.digest).folder()
    base = Base(folder, f"model {step.base_model}", model.digest)
    prompts = [Prompts(*each) for each in step.prompts]
    if step.only_embeds:
        return embedded_gates(base, model, prompts)
    key = key_of_gates(base, prompts, step.gate_mode)
    known = _known(store, key, len(prompts))
    if known is None:
        running = Running(choose_device(settings.device), settings.threads)
        measured = gates_of(base, prompts, step.gate_mode, running)
        known = _publish(store, key, measured)
    return known


def _known(store: "ArtifactStore", key: str, experts: int) -> "Gates | None":
    from merge_ops.calibration import read_gates

    artifact = store.find(GATES, key)
    if artifact is None:
        return None
    return read_gates(artifact.folder() / FILE, experts=experts, key=key)


def _publish(store: "ArtifactStore", key: str, measured: "Measured") -> "Gates":
    """Keep gates; those that another process kept meanwhile are taken instead."""
    from merge_ops.calibration import read_gates, write_gates
    from merge_ops.children import OwnFolder
    from resources.errors import ContentConflictError

    with OwnFolder() as place, store.attempt(GATES) as attempt:
        write_gates(place / FILE, measured.gates, measured.metadata)
        attempt.write_bytes(FILE, (place / FILE).read_bytes())
        with suppress(ContentConflictError):
            attempt.publish(key)
    store.point(GATES, key, GATES, key)
    experts = next(iter(measured.gates.values())).shape[0]
    return read_gates(store.get(GATES, key).folder() / FILE, experts=experts, key=key)

"""Numbers that a catalog's mixtures need before they are merged. Knows no Dagster.

Gates made of prompts, statistics of moe_experts and routers fitted on texts are measured on models
of the store, and kept in it under what they were measured from (`gates [KEY]`, `moe_statistics
[KEY]`): they are float32 sums, whose last bits differ between machines, and one store gives one
result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.measuring.kept_numbers import publish
from assets.work.merging.virtual_checkpoints import stored_by_digest
from merge_ops.errors import Fault, RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assets.work.measuring.model_child import Base, Running
    from assets.work.measuring.router_calibrating import Calibration
    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.plans import Plan
    from merge_ops.recipes import Recipe
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore

    Gates = Mapping[int, NDArray[np.float32]]

GATES, FILE = "gates", "gates.safetensors"
STATISTICS, STATISTICS_FILE = "moe_statistics", "statistics.safetensors"


@dataclass(frozen=True)
class MixtureNumbers:
    """The numbers of one recipe: rows of routers by layer, statistics of moe_experts; or None."""

    gates: "Gates | None" = None
    statistics: "MoeStatistics | None" = None


def numbers_of_mixture(
    store: "ArtifactStore",
    settings: "StreamSettings",
    recipe: "Recipe",
    models: Mapping[str, "Checkpoint"],
    reusing: "Callable[[Plan], Plan] | None" = None,
) -> MixtureNumbers:
    """Return the numbers of a recipe, measured at most once for a store; none for most recipes.

    Where something is merged to be measured, `reusing` has what an earlier merge made of it copied.
    Raises EvalError where a model cannot be run, RecipeError where it is an adapter, and what
    merging raises: routers are fitted on what the recipe merges without that.
    """
    if not recipe.measures:
        return MixtureNumbers()
    if recipe.moe is not None:
        return MixtureNumbers(_gates(store, settings, recipe, models))
    measuring = _Measuring(store, settings, recipe, models, reusing)
    statistics = measuring.statistics()
    gates = measuring.routers(statistics) if recipe.calibrates else None
    return MixtureNumbers(gates, statistics)


def _gates(
    store: "ArtifactStore",
    settings: "StreamSettings",
    recipe: "Recipe",
    models: Mapping[str, "Checkpoint"],
) -> "Gates":
    """The gates of a mixture out of dense models, made of prompts."""
    from assets.work.measuring.gating import embedded_gates, gates_of, key_of_gates
    from merge_ops.calibration.gates import Prompts

    step = recipe.moe
    assert step is not None  # the caller has looked
    base = _stored(store, recipe, "base_model", models[step.base_model])
    prompts = [Prompts(*each) for each in step.prompts]
    if step.only_embeds:
        return embedded_gates(base, models[step.base_model], prompts)
    key = key_of_gates(base, prompts, step.gate_mode)
    known = _known(store, key, len(prompts))
    if known is None:
        measured = gates_of(base, prompts, step.gate_mode, _running(settings))
        known = _publish(store, key, measured.gates, measured.metadata)
    return known


def _stored(store: "ArtifactStore", recipe: "Recipe", where: str, model: "Checkpoint") -> "Base":
    """A model of the store as a folder that is run."""
    from assets.work.measuring.model_child import Base

    if model.made_of or model.digest is None:
        problem = "is an adapter on a base, and gates are measured on one model; merge the two in"
        raise RecipeError(recipe.subject, [Fault(where, f"{problem} a document before")])
    folder = stored_by_digest(store, model.digest).folder()
    return Base(folder, f"model {model.name}", model.digest)


def _running(settings: "StreamSettings") -> "Running":
    from assets.work.measuring.model_child import Running
    from merge_ops.stream import choose_device

    return Running(choose_device(settings.device), settings.threads)


@dataclass(frozen=True)
class _Measuring:
    """What is measured for one recipe, on its models as they are in the store."""

    store: "ArtifactStore"
    settings: "StreamSettings"
    recipe: "Recipe"
    models: Mapping[str, "Checkpoint"]
    reusing: "Callable[[Plan], Plan] | None"

    def statistics(self) -> "MoeStatistics | None":
        """What the moe_experts of a `moe:` step's model do on its texts."""
        from assets.work.measuring.moe_measuring import key_of_statistics, moe_statistics_of

        step = self.recipe.fewer
        if step is None or step.texts is None or step.statistics is not None:
            return None
        name = self.recipe.models[0].model
        model, texts = _stored(self.store, self.recipe, "models", self.models[name]), step.texts
        key = key_of_statistics(model, texts.lines)
        artifact = self.store.find(STATISTICS, key)
        if artifact is None:
            found, _ = moe_statistics_of(model, texts.lines, _running(self.settings))
            artifact = self._keep_statistics(key, found)
        return _statistics_in(artifact, key)

    def _keep_statistics(self, key: str, found: "MoeStatistics") -> "Artifact":
        from merge_ops.calibration.moe_statistics import write_moe_statistics

        def write(path: Path) -> None:
            write_moe_statistics(path, found)

        return publish(self.store, STATISTICS, key, STATISTICS_FILE, write)

    def routers(self, statistics: "MoeStatistics | None") -> "Gates":
        """The rows that the recipe's routers are fitted to."""
        from assets.work.measuring.router_calibrating import calibration_of
        from merge_ops.plans import plan_merge
        from merge_ops.recipes.document import uncalibrated
        from merge_ops.stream import arithmetic_kind

        kind, unfitted = arithmetic_kind(self.settings.device), uncalibrated(self.recipe)
        plan = plan_merge(unfitted, self.models, arithmetic=kind, statistics=statistics)
        calibration = calibration_of(self.recipe, plan, self.models, statistics)
        known = _known(self.store, calibration.key, None)
        return self._fit(plan, calibration) if known is None else known

    def _fit(self, plan: "Plan", calibration: "Calibration") -> "Gates":
        """Write what is merged without the fit into a folder that goes, and fit on that."""
        from assets.work.measuring.model_child import Base
        from assets.work.measuring.router_calibrating import fitted_rows
        from merge_ops.checkpoints import FolderSink
        from merge_ops.children import OwnFolder
        from merge_ops.jobs.assembly import merge

        if self.reusing is not None:
            plan = self.reusing(plan)
        with OwnFolder() as place:
            merge(plan, {"default": FolderSink(place / "unfitted")}, self.settings)
            called = f"what {self.recipe.name} merges"
            model = Base(place / "unfitted", called, calibration.digest)
            fitted = fitted_rows(calibration, model, _running(self.settings))
        return _publish(self.store, calibration.key, fitted.rows, calibration.metadata)


def _known(store: "ArtifactStore", key: str, experts: int | None) -> "Gates | None":
    from merge_ops.calibration.gates import read_gates

    artifact = store.find(GATES, key)
    if artifact is None:
        return None
    return read_gates(artifact.folder() / FILE, experts=experts, key=key)


def _statistics_in(artifact: "Artifact", key: str) -> "MoeStatistics":
    from merge_ops.calibration.moe_statistics import read_moe_statistics

    return read_moe_statistics(artifact.folder() / STATISTICS_FILE, key)


def _publish(
    store: "ArtifactStore", key: str, rows: "Gates", metadata: Mapping[str, str]
) -> "Gates":
    """Keep rows; those that another process kept meanwhile are taken instead."""
    from merge_ops.calibration.gates import read_gates, write_gates

    def write(path: Path) -> None:
        write_gates(path, rows, metadata)

    artifact = publish(store, GATES, key, FILE, write)
    return read_gates(artifact.folder() / FILE, key=key)

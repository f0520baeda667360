"""Merges from a store into a store, as the assets do them, without Dagster."""

from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.merging.merging import MergedCheckpoint, MergeJob, merge_set
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.store.artifact_store import ArtifactStore

if TYPE_CHECKING:
    from tests.models.checkpoint_factory import Family

RECIPE = """
merge_method: {method}
parameters: {{{parameters}}}
experts: all
"""


def pull_family(store: ArtifactStore, family: "Family") -> list[str]:
    """Copy a base and its experts into the store; the experts' names."""
    folders = {"base": family.base} | {folder.name: folder for folder in family.experts}
    for name, folder in folders.items():
        base = None if name == "base" else "base"
        pull_model(store, UpstreamModel(name, str(folder), base), Path())
    return sorted(folder.name for folder in family.experts)


def merge_family(
    store: ArtifactStore, experts: list[str], method: str, parameters: str, threads: int = 2
) -> MergedCheckpoint:
    """Merge pulled experts by one method with parameters such as `lambda: 0.5`."""
    recipe = parse_recipe(RECIPE.format(method=method, parameters=parameters), "made", "made.yaml")
    (coefficient,) = recipe.coefficients()
    settings = StreamSettings(threads=threads, device="cpu")
    job = MergeJob(Steps((recipe,)), "base", "+".join(experts), {coefficient.id: None})
    return merge_set(store, job, settings).checkpoints[0]

"""Warnings of a plan reach the name that points to it and whoever asked for the merge."""

import json
from pathlib import Path

from assets.work.merging import MergeJob, merge_set, point_at
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.store.artifact_store import ArtifactStore
from tests import checkpoint_factory as factory
from tests.store_merges import RECIPE, pull_family


def test_warnings_are_kept(tmp_path: Path) -> None:
    family = factory.write_family(tmp_path / "models", factory.LLAMA)
    for folder, window in zip(family.experts, (64, 32), strict=True):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "sliding_window": window}))
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    experts = pull_family(store, family)
    recipe = parse_recipe(RECIPE.format(method="linear", parameters="weight: 1"), "m", "m.yaml")
    (coefficient,) = recipe.coefficients()
    points, asset = {coefficient.id: None}, "m/merged_checkpoint"
    job = MergeJob(Steps((recipe,)), "base", "+".join(experts), points, asset)
    settings = StreamSettings(threads=2, device="cpu")
    for _ in range(2):  # the second time it is found
        merged = merge_set(store, job, settings)
        (warning,) = merged.warnings
        assert "expert-2 has sliding_window 32" in warning
        assert "change sliding_window" in warning
        point_at(store, job, merged, "run")
        ref = store.ref("m/merged_checkpoint")
        assert ref is not None
        assert ref.fields["warnings"] == [warning]
        card = (merged.checkpoints[0].artifact.folder() / "README.md").read_text()
        assert "expert-2" not in card

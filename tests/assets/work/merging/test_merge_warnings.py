"""Warnings of a plan reach the name that points to it and whoever asked for the merge."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from assets.work.merging.merging import MergeJob, merge_set, point_at
from assets.work.merging.studying import study_set, study_task_vector
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.store.artifact_store import ArtifactStore
from tests.merges.store_merges import RECIPE, pull_family
from tests.models import checkpoint_factory as factory


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


def test_signs_of_odd_experts_are_told_by_the_study_and_kept_with_what_is_merged(
    tmp_path: Path,
) -> None:
    family = factory.write_family(tmp_path / "models", factory.LLAMA)
    weights, base = (each / "model.safetensors" for each in (family.experts[1], family.base))
    origin, tensors = load_file(base), load_file(weights)
    longer = {name: origin[name] + 9 * (each - origin[name]) for name, each in tensors.items()}
    save_file(longer, weights, metadata={"format": "pt"})
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    experts = pull_family(store, family)
    for expert in experts:
        study_task_vector(store, "base", expert)
    found = study_set(store, "base", "+".join(experts))
    (sign,) = found.findings["signs"]
    assert sign.startswith("expert-2 changed 9 times as much as the others of its set")
    assert sign in found.findings["warnings"]
    recipe = parse_recipe(RECIPE.format(method="linear", parameters="weight: 1"), "m", "m.yaml")
    (coefficient,) = recipe.coefficients()
    job = MergeJob(Steps((recipe,)), "base", "+".join(experts), {coefficient.id: None})
    assert merge_set(store, job, StreamSettings(threads=2, device="cpu")).warnings == (sign,)

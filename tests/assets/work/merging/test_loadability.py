"""A catalog asks transformers about what it is about to write, as `ronghe merge` does."""

import json

import pytest
from safetensors.torch import load_file, save_file

from assets.work.merging import loadability
from assets.work.merging.merging import MergeJob, merge_set
from merge_ops.errors import CompatibilityError
from merge_ops.plans.agreement import expected_tensors
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.store.artifact_store import ArtifactStore
from tests.merges.store_merges import RECIPE, pull_family
from tests.models import checkpoint_factory as factory

GONE = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    """A family of which every member lacks a tensor, so our own rules see nothing odd."""
    root = tmp_path_factory.mktemp("looking")
    family = factory.write_family(root / "models", factory.LLAMA, experts=1)
    for folder in (family.base, *family.experts):
        (file,) = folder.glob("*.safetensors")
        tensors = load_file(file)
        del tensors[GONE]
        save_file(tensors, file, metadata={"format": "pt"})
    store = ArtifactStore.open(f"file://{root / 'store'}", cache=root / "cache")
    return store, pull_family(store, family)


def merged(pulled, more=""):
    store, (expert,) = pulled
    text = RECIPE.format(method="task_arithmetic", parameters="weight: 0.5") + more
    recipe = parse_recipe(text, "made", "made.yaml")
    (coefficient,) = recipe.coefficients()
    job = MergeJob(Steps((recipe,)), "base", expert, {coefficient.id: None})
    return merge_set(store, job, StreamSettings(threads=1, device="cpu"))


def test_what_transformers_would_draw_at_random_is_not_written(pulled, monkeypatch):
    with pytest.raises(CompatibilityError) as refused:
        merged(pulled)
    assert f"lacks '{GONE}', which LlamaForCausalLM of its config" in str(refused.value)
    assert "`verify: false` in the recipe merges without this check" in str(refused.value)
    monkeypatch.setattr(expected_tensors, "LoadingChild", None)  # what was asked is known
    with pytest.raises(CompatibilityError, match="up_proj"):
        merged(pulled)


def test_a_recipe_may_do_without(pulled, monkeypatch):
    monkeypatch.setattr(loadability, "refuse_unloadable", None)
    (made,) = merged(pulled, "verify: false\n").checkpoints
    assert GONE not in json.dumps(made.artifact.manifest["tensors"])


def test_verify_is_true_or_false(pulled):
    with pytest.raises(Exception, match=r"verify.*is 'no'; it must be true or false"):
        merged(pulled, "verify: 'no'\n")

"""`expand:`: the deeper model says what the model said; what cannot be is refused."""

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory
from tests.models import dense_models, moe_models


def write(folder, shape=factory.QWEN2):
    shape = replace(shape, layers=4)
    factory.write_checkpoint(folder, factory.base_tensors(shape), shape)
    return folder


def merged(folder, expand):
    config = folder.parent / f"{folder.name}.yaml"
    config.write_text(f"expand: {expand}\nmodels: [{{model: {folder}}}]\n")
    return merge_in_process(config, folder.parent / f"{folder.name}-out")


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.arange(3, 11)[None]).logits


@pytest.mark.parametrize("family", ["LLAMA", "QWEN2"])
def test_new_blocks_leave_the_logits_as_they_are(tmp_path, family):
    base = write(tmp_path / "base", getattr(factory, family))
    factory.edit_config(base, layer_types=["full_attention"] * 4)
    out = merged(base, "{layers: 6, every: 2, zero: [o_proj, down_proj]}")
    config = json.loads((out / "config.json").read_text())
    assert (config["num_hidden_layers"], len(config["layer_types"])) == (6, 6)
    tensors = factory.read_tensors(out)
    assert not tensors["model.layers.2.mlp.down_proj.weight"].any()
    assert tensors["model.layers.3.mlp.down_proj.weight"].any()
    assert torch.equal(logits(out), logits(base))


def write_of(folder, kind):
    if kind in moe_models.KINDS:
        moe_models.new_model(kind, 3).save_pretrained(folder)
        factory.write_tokenizer(folder)
        return folder
    kind, *biases = kind.split()
    return dense_models.write_dense(folder, kind, 1, **dict.fromkeys(biases, True))


@pytest.mark.parametrize(
    "kind",
    ["mistral", "qwen3", "llama attention_bias mlp_bias", "mixtral", "qwen2_moe", "qwen3_moe"],
)
def test_every_family_that_is_known_keeps_its_logits(tmp_path, kind):
    base = write_of(tmp_path / "base", kind)
    out = merged(base, "{layers: 4, every: 1}")
    new = {
        name: tensor
        for name, tensor in factory.read_tensors(out).items()
        if re.search(r"layers\.[13]\..*(o_proj|down_proj|w2)\.(weight|bias)$", name)
    }
    assert new
    assert not any(tensor.any() for tensor in new.values())
    assert torch.equal(logits(out), logits(base))


def plan(folder, expand):
    recipe = parse_recipe(f"expand: {expand}\nmodels: [{{model: m}}]\n", "deep", "deep.yaml")
    return plan_merge(recipe, {"m": open_checkpoint("m", FolderSource(folder), "m")})


def test_the_plan_tells_the_new_layers(tmp_path):
    told = [str(each) for each in plan(write(tmp_path / "m"), "{layers: 6, every: 2}").cautions]
    assert any("new layers 2, 5, which add nothing yet" in each for each in told)


def test_solar_stacks_two_cut_copies(tmp_path):
    base = write(tmp_path / "base")
    one, two = factory.read_tensors(base), factory.read_tensors(merged(base, "{solar: 1}"))
    name = "model.layers.{}.mlp.down_proj.weight"
    for layer, origin in enumerate([0, 1, 2, 1, 2, 3]):
        assert torch.equal(two[name.format(layer)], one[name.format(origin)])


@pytest.mark.parametrize(
    ("expand", "message"),
    [
        ("{layers: 9, every: 2}", "is for a model of 6 layers; 'm' has 4: write 6"),
        ("{solar: 2}", "has 4 layers: cut less than half"),
    ],
)
def test_numbers_that_the_model_has_not_are_refused(tmp_path, expand, message):
    folder = write(tmp_path / "m")
    with pytest.raises(CompatibilityError, match=message):
        plan(folder, expand)


def test_families_where_zeros_may_speak_are_refused(tmp_path):
    folder = write(tmp_path / "m")
    factory.edit_config(folder, model_type="stablelm")
    with pytest.raises(CompatibilityError, match="is not known for model_type 'stablelm'"):
        plan(folder, "{layers: 6, every: 2}")


@pytest.mark.parametrize(
    ("expand", "message"),
    [
        ("{layers: 7, every: 2}", "it must be a multiple of 3"),
        ("{layers: 0, every: 2}", "is 0; it must be a whole number from 1 on"),
        ("{layers: 6}", "expand.every is missing"),
        ("{solar: 2, every: 1}", "has no place beside `solar`"),
        ("{layers: 6, every: 2, zero: [o_proj]}", "with less the new layers"),
        ("{layres: 6, every: 2}", "Did you mean 'layers'"),
        ("deep", "must be a mapping"),
    ],
)
def test_impossible_values_are_faults_at_once(expand, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(f"expand: {expand}\nmodels: [{{model: m}}]\n", "deep", "deep.yaml")

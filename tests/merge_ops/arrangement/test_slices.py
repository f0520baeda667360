"""Frankenmerges and modules: which layer comes from where, what the config says, what is not."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from merge_ops.arrangement.modules import in_module
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.plans.planning import plan_merge
from merge_ops.provenance.model_card import model_card
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory

DEEP = replace(factory.QWEN2, layers=4)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("family"), DEEP, experts=2)


def plan_of(text, **folders):
    recipe = parse_recipe(text, "study", "study.yaml")
    opened = {
        name: open_checkpoint(name, FolderSource(folder), name) for name, folder in folders.items()
    }
    return plan_merge(recipe, opened)


def merged(text, tmp_path, **folders):
    for name, folder in folders.items():
        text = text.replace(f"${name}", str(folder))
    config = tmp_path / "study.yaml"
    config.write_text(text)
    out = merge_in_process(config, tmp_path / "out")
    return out, factory.read_tensors(out)


STACK = """
merge_method: passthrough
slices:
  - sources: [{model: $a, layer_range: [0, 3]}]
  - sources: [{model: $b, layer_range: [1, 4]}]
"""


def test_a_frankenmerge_takes_each_layer_from_where_it_says(family, tmp_path):
    first, second = family.experts
    factory.edit_config(first, layer_types=["full_attention"] * 4, max_window_layers=4)
    out, tensors = merged(STACK, tmp_path, a=first, b=second)
    one, two = factory.read_tensors(first), factory.read_tensors(second)
    name = "model.layers.{}.mlp.down_proj.weight"
    for layer, (source, number) in enumerate([(one, 0), (one, 1), (one, 2), (two, 1), (two, 2)]):
        assert torch.equal(tensors[name.format(layer)], source[name.format(number)])
    assert torch.equal(tensors["model.embed_tokens.weight"], one["model.embed_tokens.weight"])
    assert torch.equal(tensors["model.norm.weight"], two["model.norm.weight"])
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == 6
    assert config["layer_types"] == ["full_attention"] * 6
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert len(loaded.model.layers) == 6
    assert torch.isfinite(loaded(torch.tensor([[1, 2, 3]])).logits).all()


def test_lists_with_an_entry_a_layer_follow_their_layers(family):
    kinds = {"a": ["full", "slide", "full", "slide"], "b": ["x0", "x1", "x2", "x3"]}
    opened = {
        name: open_checkpoint(name, FolderSource(folder), name)
        for name, folder in zip(("a", "b"), family.experts, strict=True)
    }
    opened = {
        name: replace(each, config={**each.config, "layer_types": kinds[name], "eos_token_id": [1]})
        for name, each in opened.items()
    }
    recipe = parse_recipe(STACK.replace("$", ""), "study", "study.yaml")
    config = plan_merge(recipe, opened).config
    assert config["layer_types"] == ["full", "slide", "full", "x1", "x2", "x3"]
    assert config["eos_token_id"] == [1]


def test_the_same_model_may_be_repeated_and_read_again(family, tmp_path):
    text = """
merge_method: passthrough
slices:
  - sources: [{model: $a, layer_range: [0, 2]}]
  - sources: [{model: $a, layer_range: [0, 4]}]
"""
    _, tensors = merged(text, tmp_path, a=family.base)
    name = "model.layers.{}.self_attn.q_proj.weight"
    for layer, number in enumerate([0, 1, 0, 1, 2, 3]):
        expected = factory.read_tensors(family.base)[name.format(number)]
        assert torch.equal(tensors[name.format(layer)], expected)


SLICE = "merge_method: task_arithmetic\nbase_model: base\nparameters: {weight: 1}\nslices:\n"


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ("  - sources: [{model: base, layer_range: [0, 9]}, {model: a, layer_range: [0, 9]}]",
         r"slices\[0\].sources\[0\].layer_range ends at 9; base has 4 layers"),
        ("  - sources: [{model: base, layer_range: [0, 2]}, {model: a, layer_range: [0, 3]}]",
         r"slices\[0\].sources have different numbers of layers \(2, 3\)"),
        ("  - sources: [{model: base, layer_range: [2, 2]}, {model: a, layer_range: [0, 3]}]",
         r"layer_range is \[2, 2\]; it must be \[first, end\]"),
        ("  - sources: [{model: a, layer_range: [0, 2]}]",
         r"slices\[0\].sources does not list the base model base; task_arithmetic needs its"),
        ("  - sources: [{model: base, layer_range: [0, 2]}]",
         r"slices\[0\] task_arithmetic merges at least 1 model besides the base; got none"),
        ("  - sources: [{model: a, layer_range: [0, 2]}, {model: a, layer_range: [1, 3]}]",
         r"sources\[1\].model is 'a' again, as in slices\[0\].sources\[0\]"),
        ("  - sources: [{model: a, layers: [0, 2]}]", r"sources\[0\].layers is no key of a source"),
        ("  - source: [{model: a}]", r"slices\[0\].source is no key of a slice.*Did you mean"),
        ("  - 3", r"slices\[0\] is 3; it must be a mapping"),
        ("  - {sources: []}", r"slices\[0\].sources must be a list"),
        ("  - sources: [{model: base, layer_range: [0, 1], parameters: {weigth: 1}}]",
         r"parameters.weigth is no parameter of task_arithmetic. Did you mean 'weight'"),
    ],
)  # fmt: skip
def test_slices_that_cannot_be(slices, expected, family):
    with pytest.raises(RecipeError, match=expected):
        plan_of(SLICE + slices, base=family.base, a=family.experts[0])


def test_a_sweep_that_every_slice_hides_is_refused(family):
    slices = "  - sources: [{model: base, layer_range: [0, 2]}, {model: a, layer_range: [0, 2]}]\n"
    text = SLICE + slices + "    parameters: {lambda: 2}\nsweep: {lambda: [1, 2]}"
    with pytest.raises(RecipeError, match=r"sweep.lambda has no effect"):
        plan_of(text, base=family.base, a=family.experts[0])
    plan_of(text.replace("{lambda: 2}", "{}"), base=family.base, a=family.experts[0])


def test_the_card_tells_the_slices(family):
    recipe = parse_recipe(STACK.replace("$", ""), "study", "study.yaml")
    folders = dict(zip(("a", "b"), family.experts, strict=True))
    plan = plan_of(STACK.replace("$", ""), **folders)
    text = model_card(plan, plan.outputs[0]).split("```yaml\n")[1].split("```")[0]
    assert parse_recipe(text, "study", "study.yaml") == recipe


def test_a_slice_of_another_shape_is_refused(family, tmp_path):
    wide = factory.write_family(tmp_path, replace(DEEP, intermediate=128), experts=1).base
    text = "merge_method: passthrough\nslices:\n"
    text += "  - sources: [{model: a, layer_range: [0, 2]}]\n"
    plan_of(text + "  - sources: [{model: a, layer_range: [2, 4]}]", a=wide)
    text = """
merge_method: linear
parameters: {weight: 1}
slices:
  - sources: [{model: a, layer_range: [0, 2]}, {model: wide, layer_range: [0, 2]}]
"""
    with pytest.raises(CompatibilityError, match=r"wide has another shape: 'model.layers.0.mlp"):
        plan_of(text, a=family.base, wide=wide)


# ------------------------------------------------------------------------------ tied heads


def test_a_head_that_only_an_expert_has_is_merged_and_untied(family, tmp_path):
    """mergekit writes it and leaves the config tied, so that nobody ever loads it."""
    loose = factory.write_checkpoint(
        tmp_path / "loose",
        factory.expert_tensors(factory.base_tensors(replace(DEEP, tied=False)), 5),
        replace(DEEP, tied=False),
    )
    text = "merge_method: linear\nbase_model: $base\nmodels: [{model: $a}]\nparameters: {weight: 1}"
    out, tensors = merged(text, tmp_path, base=family.base, a=loose)
    base, own = factory.read_tensors(family.base), factory.read_tensors(loose)
    expected = (own["lm_head.weight"] + base["model.embed_tokens.weight"]) / 2
    torch.testing.assert_close(tensors["lm_head.weight"], expected)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(loaded.lm_head.weight.data, expected)


@pytest.mark.parametrize("order", [("loose", "base"), ("base", "loose")])
def test_a_stack_of_a_tied_and_an_untied_model_has_the_last_ones_head(family, tmp_path, order):
    """The last slice gives the head; where it is tied, that is its embedding."""
    loose = factory.write_checkpoint(
        tmp_path / "loose",
        factory.expert_tensors(factory.base_tensors(replace(DEEP, tied=False)), 5),
        replace(DEEP, tied=False),
    )
    text = "merge_method: passthrough\nslices:\n"
    text += "".join(f"  - sources: [{{model: ${name}, layer_range: [0, 2]}}]\n" for name in order)
    out, tensors = merged(text, tmp_path, base=family.base, loose=loose)
    heads = {
        "base": factory.read_tensors(family.base)["model.embed_tokens.weight"],
        "loose": factory.read_tensors(loose)["lm_head.weight"],
    }
    assert torch.equal(tensors["lm_head.weight"], heads[order[-1]])
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(loaded.lm_head.weight.data, heads[order[-1]])


# ------------------------------------------------------------------------------ modules


TOWERS = {
    "model.embed_tokens.weight": (40, 8),
    "model.layers.0.mlp.up_proj.weight": (6, 8),
    "model.layers.1.mlp.up_proj.weight": (6, 8),
    "model.norm.weight": (8,),
    "visual.patch_embed.proj.weight": (8, 12),
    "visual.blocks.0.mlp.fc1.weight": (5, 8),
    "visual.merger.mlp.0.weight": (8, 8),
    "lm_head.weight": (40, 8),
}


def write_towers(folder, seed):
    folder.mkdir()
    tensors = {name: factory.draw(name, shape, seed, 1.0) for name, shape in TOWERS.items()}
    factory.write_weights(folder, tensors)
    factory.write_json(folder / "config.json", {"model_type": "towers"})
    return tensors


def test_one_tower_is_merged_and_the_others_are_copied(tmp_path):
    one, two = (write_towers(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2)))
    text = """
merge_method: linear
base_model: $one
modules:
  text_decoder:
    models:
      - {model: $one, parameters: {weight: [0.5, 1.0]}}
      - {model: $two, parameters: {weight: [0.5, 0.0]}}
"""
    _, tensors = merged(text, tmp_path, one=tmp_path / "one", two=tmp_path / "two")
    assert sorted(tensors) == sorted(TOWERS)
    for name, value in tensors.items():
        text_tower = not name.startswith("visual.")
        half = text_tower and "layers.1" not in name
        expected = (one[name] + two[name]) / 2 if half else one[name]
        torch.testing.assert_close(value, expected)


def test_slices_within_a_module(tmp_path):
    one, two = (write_towers(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2)))
    text = """
merge_method: passthrough
modules:
  text_decoder:
    slices:
      - sources: [{model: $one, layer_range: [0, 2]}]
      - sources: [{model: $two, layer_range: [0, 1]}]
  visual:
    models: [{model: $two}]
"""
    _, tensors = merged(text, tmp_path, one=tmp_path / "one", two=tmp_path / "two")
    name = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(tensors[name.format(2)], two[name.format(0)])
    assert torch.equal(
        tensors["visual.blocks.0.mlp.fc1.weight"], two["visual.blocks.0.mlp.fc1.weight"]
    )
    assert torch.equal(tensors["model.embed_tokens.weight"], one["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("{text_decodr: {models: [{model: one}]}}", "modules.text_decodr matches no tensor of one"),
        ("{visual: {}}", "modules.visual must have either 'models' or 'slices'"),
        ("{visual: {model: []}}", "modules.visual.model is no key of a module"),
        ("[]", "modules must be a mapping"),
        (
            "{visual: {models: [{model: one}], parameters: {scal: 1}}}",
            "modules.visual.parameters.scal",
        ),
    ],
)
def test_modules_that_cannot_be(modules, expected, tmp_path):
    write_towers(tmp_path / "one", 1)
    text = f"merge_method: passthrough\nmodules: {modules}"
    with pytest.raises(RecipeError, match=expected):
        plan_of(text, one=tmp_path / "one")


def test_which_tensor_belongs_to_which_module():
    names = {
        "model.visual.blocks.3.attn.qkv.weight": "vision_tower",
        "visual.merger.mlp.0.weight": "multi_modal_projector",
        "multi_modal_projector.linear_1.weight": "multi_modal_projector",
        "vision_tower.vision_model.encoder.layers.0.fc.weight": "vision_tower",
        "model.language_model.layers.0.mlp.up_proj.weight": "text_decoder",
        "lm_head.weight": "text_decoder",
    }
    modules = ("text_decoder", "vision_tower", "multi_modal_projector")
    for name, module in names.items():
        assert [each for each in modules if in_module(each, name)] == [module]

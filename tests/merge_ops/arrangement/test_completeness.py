"""Modules and slices drop no tensor silently: merged, copied, named, or refused."""

import re

import pytest
import torch

from merge_ops.errors import CompatibilityError, RecipeError
from tests.merge_ops.arrangement.layered_models import (
    OUTSIDE,
    layers,
    merged,
    plan_of,
    write_model,
)

TEXT = {**OUTSIDE, **layers(2)}
TOWER = {"visual.blocks.0.fc1.weight": (3, 4), "visual.blocks.1.fc1.weight": (3, 4)}
EXTRA = {f"model.layers.{n}.self_attn.q_norm.weight": (4,) for n in range(2)}
DEFAULT = """
merge_method: linear
modules:
  default:
    models:
      - {model: base, parameters: {weight: 0.5}}
      - {model: e1, parameters: {weight: 0.5}}
"""


def test_what_only_an_expert_has_in_a_module_is_refused_as_with_models(tmp_path):
    write_model(tmp_path / "base", 0, TEXT)
    write_model(tmp_path / "e1", 1, {**TEXT, **EXTRA})
    expected = r"e1 has .*q_norm.weight'.*, which base lacks; nothing is dropped silently"
    with pytest.raises(CompatibilityError, match=expected):
        plan_of(DEFAULT, tmp_path, "base", "e1")
    models = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: base}, {model: e1}]"
    with pytest.raises(CompatibilityError, match=expected):
        plan_of(models, tmp_path, "base", "e1")


def test_what_an_expert_lacks_in_a_module_is_refused(tmp_path):
    write_model(tmp_path / "base", 0, {**TEXT, **EXTRA})
    write_model(tmp_path / "e1", 1, TEXT)
    with pytest.raises(CompatibilityError, match=r"e1 lacks .*q_norm.weight', which base has"):
        plan_of(DEFAULT, tmp_path, "base", "e1")


def test_a_module_of_other_models_than_the_first_must_have_what_the_config_describes(tmp_path):
    """The second module leaves out the model that gives the config."""
    write_model(tmp_path / "a", 0, {**TEXT, **TOWER})
    write_model(tmp_path / "b", 1, {**TEXT, **TOWER})
    short = {name: shape for name, shape in TOWER.items() if "blocks.0" in name}
    write_model(tmp_path / "c", 2, {**TEXT, **short, "visual.extra.weight": (2, 2)})
    text = """
merge_method: linear
parameters: {weight: 1}
modules:
  text_decoder: {models: [{model: a}, {model: b}]}
  visual: {models: [{model: c}, {model: b}]}
"""
    with pytest.raises(CompatibilityError) as caught:
        plan_of(text, tmp_path, "a", "b", "c")
    problems = sorted(fault.problem for fault in caught.value.faults)
    assert problems == [
        "has 'visual.extra.weight', which a lacks; nothing is dropped silently",
        "lacks 'visual.blocks.1.fc1.weight', which a has",
    ]


def test_what_lies_outside_all_modules_is_copied_or_named(tmp_path):
    base = write_model(tmp_path / "base", 0, {**TEXT, **TOWER})
    expert = write_model(tmp_path / "e1", 1, {**TEXT, **TOWER, "audio_tower.conv.weight": (2, 2)})
    text = DEFAULT.replace("default", "text_decoder")
    plan = plan_of(text, tmp_path, "base", "e1")
    assert plan.excluded == {"audio_tower.conv.weight": "in no module, and only e1 has it"}
    (caution,) = plan.cautions
    assert str(caution) == (
        "e1 has 'audio_tower.conv.weight', which base lacks and no module holds. They are not"
        " written; to merge them, name a module that holds them"
    )
    copied = [step.output.name for step in plan.steps if step.action == "copy"]
    assert copied == list(TOWER)
    found = merged(text.replace("model: ", "model: $"), tmp_path)
    assert torch.equal(found["visual.blocks.0.fc1.weight"], base["visual.blocks.0.fc1.weight"])
    name = "model.layers.1.mlp.up_proj.weight"
    torch.testing.assert_close(found[name], (base[name] + expert[name]) / 2)


def test_a_tensor_in_two_modules_belongs_to_the_first(tmp_path):
    one, two = (write_model(tmp_path / each, n, {**TEXT, **TOWER}) for n, each in enumerate("ab"))
    text = """
merge_method: passthrough
modules:
  visual: {models: [{model: $b}]}
  default: {models: [{model: $a}]}
"""
    found = merged(text, tmp_path)
    assert found.keys() == one.keys()
    for name, value in found.items():
        assert torch.equal(value, (two if name in TOWER else one)[name])


# ------------------------------------------------------------------- slices: outside the layers

STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 1]}]
  - sources: [{model: b, layer_range: [1, 2]}]
"""
MERGED = """
merge_method: linear
parameters: {weight: 1}
slices:
  - sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]
"""


@pytest.mark.parametrize(
    ("recipe", "ours", "theirs", "problem"),
    [
        # An expert that is merged has a part of its own, before or behind the layers.
        (MERGED, {}, {"model.wpe.weight": (5, 4)}, "b has 'model.wpe.weight', which a lacks"),
        (MERGED, {}, {"score.weight": (2, 4)}, "b has 'score.weight', which a lacks"),
        # The first model's config says that it has a part which the last slice's model lacks.
        (STACKED, {"model.extra.weight": (2, 2)}, {}, "a has 'model.extra.weight', which b lacks"),
        (STACKED, {}, {"model.extra.weight": (2, 2)}, "b has 'model.extra.weight', which a lacks"),
    ],
)
def test_what_lies_outside_the_layers_of_slices_is_not_lost(
    recipe, ours, theirs, problem, tmp_path
):
    write_model(tmp_path / "a", 0, {**TEXT, **ours})
    write_model(tmp_path / "b", 1, {**TEXT, **theirs})
    with pytest.raises(CompatibilityError, match=problem):
        plan_of(recipe, tmp_path, "a", "b")


def test_a_head_that_the_last_model_lacks_is_not_lost(tmp_path):
    write_model(tmp_path / "a", 0, TEXT, tie_word_embeddings=False)
    tied = {name: shape for name, shape in TEXT.items() if name != "lm_head.weight"}
    write_model(tmp_path / "b", 1, tied, tie_word_embeddings=True)
    with pytest.raises(CompatibilityError, match=r"a has 'lm_head.weight', which b lacks"):
        plan_of(STACKED, tmp_path, "a", "b")


def test_a_part_that_stacked_layers_leave_behind_is_named(tmp_path):
    """`v_head` of a model trained by reinforcement, of which layers in the middle are taken."""
    write_model(tmp_path / "a", 0, TEXT)
    write_model(tmp_path / "b", 1, {**TEXT, "v_head.summary.weight": (1, 4)})
    text = STACKED + "  - sources: [{model: a, layer_range: [0, 2]}]\n"
    plan = plan_of(text, tmp_path, "a", "b")
    assert plan.excluded == {
        "v_head.summary.weight": "only b has it, of which layers alone are taken"
    }
    assert [str(each) for each in plan.cautions] == [
        "b has 'v_head.summary.weight' outside the layers, of which slices take nothing. They are"
        " not written"
    ]


# ------------------------------------------------------------ slices: multi-token prediction

NUMBERED = {
    f"model.layers.2.{part}.weight": shape
    for part, shape in {"mlp.up_proj": (6, 4), "input_layernorm": (4,), "eh_proj": (4, 8)}.items()
}
NAMED = {
    "mtp.fc.weight": (4, 8),
    "mtp.layers.0.mlp.up_proj.weight": (6, 4),
    "mtp.norm.weight": (4,),
}
CONFIG = {"num_hidden_layers": 2, "num_nextn_predict_layers": 1}
HALF = """
merge_method: linear
slices:
  - sources:
      - {model: $a, layer_range: [0, 2], parameters: {weight: [1, 0.25]}}
      - {model: $b, layer_range: [0, 2], parameters: {weight: [0, 0.75]}}
"""


@pytest.mark.parametrize("part", [NUMBERED, NAMED])
def test_a_part_for_further_tokens_stays_behind_the_stack(part, tmp_path):
    shapes = {**TEXT, **part}
    one, two = (write_model(tmp_path / each, n, shapes, **CONFIG) for n, each in enumerate("ab"))
    found = merged(HALF, tmp_path)
    assert found.keys() == shapes.keys()
    for name in part:
        torch.testing.assert_close(found[name], 0.25 * one[name] + 0.75 * two[name])
    plan = plan_of(HALF.replace("$", ""), tmp_path, "a", "b")
    assert plan.config["num_nextn_predict_layers"] == 1
    assert (plan.config["num_hidden_layers"], plan.cautions, plan.excluded) == (2, (), {})


def test_a_part_for_further_tokens_moves_behind_a_deeper_stack(tmp_path):
    tensors = write_model(tmp_path / "a", 0, {**TEXT, **NUMBERED}, **CONFIG)
    text = """
merge_method: passthrough
slices:
  - sources: [{model: $a, layer_range: [0, 2]}]
  - sources: [{model: $a, layer_range: [1, 2]}]
"""
    found = merged(text, tmp_path)
    for name in NUMBERED:
        moved = found[name.replace("layers.2", "layers.3")]
        assert torch.equal(moved, tensors[name])
    assert torch.equal(
        found["model.layers.2.mlp.up_proj.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    )
    assert "model.layers.2.eh_proj.weight" not in found


@pytest.mark.parametrize("part", [NUMBERED, NAMED])
def test_a_part_that_one_of_them_lacks_is_named_and_the_config_follows(part, tmp_path):
    """transformers saves DeepSeek-V3 and GLM-4.5 without it."""
    write_model(tmp_path / "a", 0, {**TEXT, **part}, **CONFIG)
    write_model(tmp_path / "b", 1, TEXT, **CONFIG)
    plan = plan_of(HALF.replace("$", ""), tmp_path, "a", "b")
    assert plan.excluded.keys() == part.keys()
    assert plan.config["num_nextn_predict_layers"] == 0
    assert {step.output.name for step in plan.steps} == TEXT.keys()
    (caution,) = plan.cautions
    assert re.search(
        r"a has .* for multi-token prediction behind its 2 layers, .*: they are not written;"
        r" num_nextn_predict_layers in config.json becomes 0",
        str(caution),
    )
    assert all(name in str(caution) for name in part)


def test_a_range_does_not_end_in_a_part_for_further_tokens(tmp_path):
    write_model(tmp_path / "a", 0, {**TEXT, **NUMBERED}, **CONFIG)
    text = "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 3]}]\n"
    expected = r"ends at 3; a has 2 layers .*, and 1 for multi-token prediction behind them"
    with pytest.raises(RecipeError, match=expected):
        plan_of(text, tmp_path, "a")


def test_a_layer_behind_that_no_config_explains_can_be_taken(tmp_path):
    """A config that counts fewer layers than there are, as after a cut that was undone."""
    write_model(tmp_path / "a", 0, {**OUTSIDE, **layers(3)}, num_hidden_layers=2)
    text = "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 3]}]\n"
    plan = plan_of(text, tmp_path, "a")
    assert (plan.config["num_hidden_layers"], plan.cautions) == (3, ())


def test_the_slices_of_each_module_change_their_own_part_of_the_config(tmp_path):
    config = {"text_config": {"num_hidden_layers": 2}, "vision_config": {"depth": 2}}
    write_model(tmp_path / "a", 0, {**TEXT, **TOWER}, **config)
    text = """
merge_method: passthrough
modules:
  text_decoder:
    slices: [{sources: [{model: a, layer_range: [0, 2]}]}, {sources: [{model: a, layer_range: [0, 2]}]}]
  visual: {slices: [{sources: [{model: a, layer_range: [0, 1]}]}]}
"""  # noqa: E501
    plan = plan_of(text, tmp_path, "a")
    assert plan.config["text_config"] == {"num_hidden_layers": 4}
    assert plan.config["vision_config"] == {"depth": 1}
    assert [str(each)[:26] for each in plan.cautions] == ["layer 1 of a is in no slic"]

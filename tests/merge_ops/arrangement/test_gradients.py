"""Gradients over the layers that config.json counts, over stacks of image models, and over none.

The share of the second model is read off the merged tensors.
"""

import pytest

from merge_ops.errors import RecipeError
from tests.merge_ops.arrangement.layered_models import (
    OUTSIDE,
    layers,
    merged,
    plan_of,
    write_model,
)

GRADIENT = """
merge_method: linear
models:
  - {model: $a, parameters: {weight: [1, 0]}}
  - {model: $b, parameters: {weight: [0, 1]}}
"""


def shares(tmp_path, shapes, **config):
    """The share of `b` in each tensor of the merge of `a` and `b`."""
    one, two = (write_model(tmp_path / each, n, shapes, **config) for n, each in enumerate("ab"))
    found = merged(GRADIENT, tmp_path)
    result = {}
    for name in shapes:
        way = (two[name] - one[name]).double()
        result[name] = float(((found[name] - one[name]) * way).sum() / (way * way).sum())
    return result


def of_layers(found, stack, part):
    numbers = range(sum(name.endswith(f".{part}") and name.startswith(stack) for name in found))
    return [found[f"{stack}.{number}.{part}"] for number in numbers]


UP = "mlp.up_proj.weight"
THIRDS = pytest.approx([0, 1 / 3, 2 / 3, 1, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("stack", "config"),
    [
        ("model.layers", {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}),
        ("model.layers", {"num_hidden_layers": 4}),
        ("model.language_model.layers", {"text_config": {"num_hidden_layers": 4}}),
        ("transformer.encoder.layers", {"num_layers": 4}),
        ("visual.blocks", {"vision_config": {"depth": 4}, "num_hidden_layers": 9}),
        ("decoder.block", {"num_layers": 9, "num_decoder_layers": 4}),
    ],
)
def test_layers_behind_the_counted_ones_do_not_stretch_a_gradient(stack, config, tmp_path):
    found = shares(tmp_path, {**OUTSIDE, **layers(5, stack=stack)}, **config)
    assert of_layers(found, stack, UP) == THIRDS
    assert found["lm_head.weight"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": 12}, {"num_hidden_layers": None}])
def test_without_a_count_the_layers_of_the_file_count(config, tmp_path):
    found = shares(tmp_path, layers(5), **config)
    expected = pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=1e-6)
    assert of_layers(found, "model.layers", UP) == expected


def test_each_side_of_an_encoder_and_decoder_has_its_own_count(tmp_path):
    shapes = {**layers(4, stack="encoder.block"), **layers(3, stack="decoder.block")}
    found = shares(tmp_path, shapes, num_layers=3, num_decoder_layers=3)
    expected = pytest.approx([0, 0.5, 1, 1], abs=1e-6)
    assert of_layers(found, "encoder.block", UP) == expected
    assert of_layers(found, "decoder.block", UP) == pytest.approx([0, 0.5, 1], abs=1e-6)


SIX = pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1], abs=1e-6)


@pytest.mark.parametrize(
    "names",
    [
        [
            *(f"unet.down_blocks.{n}.attentions.0.proj_in.weight" for n in range(3)),
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
            *(f"unet.up_blocks.{n}.resnets.1.conv1.weight" for n in range(3)),
        ],
        [
            *(
                f"model.diffusion_model.input_blocks.{n}.1.transformer_blocks.0.attn1.to_q.weight"
                for n in range(3)
            ),
            "model.diffusion_model.middle_block.1.proj_in.weight",
            *(f"model.diffusion_model.output_blocks.{n}.0.in_layers.2.weight" for n in range(3)),
        ],
        [
            *(f"double_blocks.{n}.img_attn.qkv.weight" for n in range(3)),
            *(f"single_blocks.{n}.linear1.weight" for n in range(4)),
        ],
        [f"visual.transformer.resblocks.{n}.mlp.c_fc.weight" for n in range(7)],
    ],
)
def test_a_gradient_runs_through_the_whole_net_of_an_image_model(names, tmp_path):
    others = ["time_embed.0.weight", "conv_in.weight"]
    found = shares(tmp_path, dict.fromkeys([*names, *others], (3, 3)))
    assert [found[name] for name in names] == SIX
    assert [found[name] for name in others] == pytest.approx([0, 0], abs=1e-6)


# ------------------------------------------------------------------------------ no effect

NOWHERE = {"features.0.weight": (3, 3), "features.1.weight": (3, 3), "head.weight": (2, 3)}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (GRADIENT.replace("$", ""), r"models\[0\].parameters.weight is a gradient over layers"),
        ("merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: [0.5, 1]}",
         "parameters.weight is a gradient over layers"),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\n"
         "parameters: {t: [{filter: head, value: [0, 1]}, {value: 0.5}]}", "parameters.t is a gr"),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nsweep: {t: [[0, 1], 0.5]}",
         "sweep.t is a gradient over layers"),
    ],
)  # fmt: skip
def test_a_gradient_over_no_stack_is_refused(text, where, tmp_path):
    for number, name in enumerate("ab"):
        write_model(tmp_path / name, number, NOWHERE)
    with pytest.raises(RecipeError, match=where) as caught:
        plan_of(text, tmp_path, "a", "b")
    assert "the gradient would have no effect. Give one value, or a value for each part" in str(
        caught.value
    )
    assert "(such as 'features.0.weight')" in str(caught.value)


def test_a_gradient_of_a_module_without_layers_is_refused(tmp_path):
    shapes = {**OUTSIDE, **layers(2), "multi_modal_projector.linear_1.weight": (3, 3)}
    for number, name in enumerate("ab"):
        write_model(tmp_path / name, number, shapes)
    text = """
merge_method: linear
parameters: {weight: [0.5, 1]}
modules:
  text_decoder: {models: [{model: a}, {model: b}]}
  multi_modal_projector: {models: [{model: a}, {model: b}]}
"""
    plan_of(text, tmp_path, "a", "b")  # shared: it has an effect on the layers
    own = text.rstrip()[:-1] + ", parameters: {weight: [0, 1]}}\n"
    expected = r"modules.multi_modal_projector.parameters.weight is a gradient"
    with pytest.raises(RecipeError, match=expected):
        plan_of(own, tmp_path, "a", "b")


def test_one_value_needs_no_stack(tmp_path):
    for number, name in enumerate("ab"):
        write_model(tmp_path / name, number, NOWHERE)
    text = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: [0.5]}"
    assert len(plan_of(text, tmp_path, "a", "b").steps) == 3

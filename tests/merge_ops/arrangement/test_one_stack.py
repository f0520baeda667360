"""Layers of several models make one stack where they fit it; layers that are left out are told."""

import pytest

from merge_ops.errors import CompatibilityError, RecipeError
from tests.merge_ops.arrangement.layered_models import (
    OUTSIDE,
    PARTS,
    layers,
    plan_of,
    write_model,
)

FOUR = {"num_hidden_layers": 4}


def wide(width, inner, rows=10):
    parts = {"mlp.up_proj.weight": (inner, width), "input_layernorm.weight": (width,)}
    outside = {
        "model.embed_tokens.weight": (rows, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (rows, width),
    }
    return {**outside, **layers(4, parts)}


TWO = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [2, 4]}]
"""


def plan_two(tmp_path, ours, theirs, config=FOUR, text=TWO):
    write_model(tmp_path / "a", 0, ours, **config)
    write_model(tmp_path / "b", 1, theirs, **config)
    return plan_of(text, tmp_path, "a", "b")


def test_layers_of_another_width_are_refused_with_all_that_does_not_fit(tmp_path):
    with pytest.raises(CompatibilityError) as caught:
        plan_two(tmp_path, wide(4, 6), wide(8, 6))
    told = [str(fault) for fault in caught.value.faults]
    assert told == [
        "b has another shape: 'model.layers.2.input_layernorm.weight' is [8], but [4] in the layers"
        " of a, whose config.json describes the result and can say only one size for all layers of"
        " a stack",
        "b has another shape: 'lm_head.weight' is [10, 8], but [10, 4] in a, whose config.json"
        " describes the result",
        "b has another shape: 'model.norm.weight' is [8], but [4] in a, whose config.json describes"
        " the result",
    ]


def test_layers_with_another_inner_size_are_refused(tmp_path):
    """The width is the same: head and norm fit."""
    expected = r"'model.layers.2.mlp.up_proj.weight' is \[12, 4\], but \[6, 4\] in the layers of a"
    with pytest.raises(CompatibilityError, match=expected):
        plan_two(tmp_path, wide(4, 6), wide(4, 12))


def test_a_head_of_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(CompatibilityError, match=r"'lm_head.weight' is \[12, 4\], but \[10, 4\]"):
        plan_two(tmp_path, wide(4, 6), wide(4, 6, rows=12))


def test_layers_with_parts_that_the_others_lack_are_refused(tmp_path):
    """Biases: transformers would draw those that half of the layers lack."""
    biased = {**wide(4, 6), **layers(4, {"mlp.up_proj.bias": (6,)})}
    with pytest.raises(CompatibilityError, match=r"b has 'model.layers.2.mlp.up_proj.bias', which"):
        plan_two(tmp_path / "more", wide(4, 6), biased)
    with pytest.raises(
        CompatibilityError, match=r"b lacks 'model.layers.2.mlp.up_proj.bias', whic"
    ):
        plan_two(tmp_path / "less", biased, wide(4, 6))


def test_layers_of_another_name_make_no_stack(tmp_path):
    other = {**OUTSIDE, **layers(4, stack="transformer.h")}
    with pytest.raises(
        RecipeError, match=r"is of 'transformer.h', but of 'model.layers' in the fi"
    ):
        plan_two(tmp_path, wide(4, 6), other)


def test_sizes_that_vary_by_layer_may_be_stacked(tmp_path):
    """OpenELM, DeciLM: a part that varies in the model itself, or by a list of its config."""
    by_layer = {f"model.layers.{n}.mlp.up_proj.weight": (6 + 2 * n, 4) for n in range(4)}
    ours = {**wide(4, 6), **by_layer}
    theirs = {**wide(4, 6), **{name: (rows + 2, 4) for name, (rows, _) in by_layer.items()}}
    assert plan_two(tmp_path / "varies", ours, theirs).cautions == ()
    config = {**FOUR, "intermediate_size": [6, 6, 6, 6]}
    plan_two(tmp_path / "listed", wide(4, 6), wide(4, 12), config)
    with pytest.raises(CompatibilityError, match=r"input_layernorm.weight' is \[8\], but \[4\]"):
        plan_two(tmp_path / "width", wide(4, 6), wide(8, 6), config)


def test_layers_of_several_kinds_may_be_stacked(tmp_path):
    """A mixture of experts in some of the layers."""
    mixed = {**OUTSIDE}
    for number in range(4):
        parts = PARTS if number % 2 else {"moe.experts.0.up.weight": (3, 4), **PARTS}
        if number % 2 == 0:
            parts = {name: shape for name, shape in parts.items() if "mlp" not in name}
        mixed |= {f"model.layers.{number}.{part}": shape for part, shape in parts.items()}
    assert plan_two(tmp_path, mixed, mixed).cautions == ()


def test_a_base_that_is_in_no_slice_gives_the_config(tmp_path):
    write_model(tmp_path / "base", 2, wide(8, 6), **FOUR)
    text = "base_model: base" + TWO
    write_model(tmp_path / "a", 0, wide(4, 6), **FOUR)
    write_model(tmp_path / "b", 1, wide(4, 6), **FOUR)
    with pytest.raises(CompatibilityError, match=r"a has another shape: .* in the layers of base"):
        plan_of(text, tmp_path, "a", "b", "base")


# ------------------------------------------------------------------------------ gaps

BOTH = "merge_method: slerp\nbase_model: a\nparameters: {t: 0.5}\nslices:\n"


def slices(*ranges, method=BOTH):
    models = "ab" if method == BOTH else "a"
    return method + "".join(
        "  - sources: ["
        + ", ".join(f"{{model: {model}, layer_range: [{first}, {end}]}}" for model in models)
        + "]\n"
        for first, end in ranges
    )


ALONE = "merge_method: passthrough\nslices:\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (slices((0, 1), (2, 3)), "layers 1 and 3 of a and b are in no slice; the result has 2 l"),
        (slices((0, 3)), "layer 3 of a and b is in no slice; the result has 3 layers. The end of"),
        (slices((3, 4)), "layers 0 to 2 of a and b are in no slice; the result has 1 layer. The"),
        (slices((0, 1), (3, 4), method=ALONE), "layers 1 and 2 of a are in no slice"),
        (slices((0, 3), (2, 4)), "layer 2 of the same models is merged by more than one slice; th"),
        # Frankenmerges: nothing to say.
        (slices((0, 4)), None),
        (slices((0, 2), (2, 4)), None),
        (slices((0, 3), (1, 4), method=ALONE), None),
        (TWO, None),
        (TWO.replace("[0, 2]", "[0, 3]").replace("[2, 4]", "[1, 4]"), None),
    ],
)
def test_layers_in_no_slice_are_told(text, told, tmp_path):
    plan = plan_two(tmp_path, wide(4, 6), wide(4, 6), text=text)
    found = [str(caution) for caution in plan.cautions]
    assert [each[: len(told)] for each in found] == [told] if told else found == []


def test_a_layer_that_the_file_lacks_is_refused(tmp_path):
    shapes = {name: shape for name, shape in wide(4, 6).items() if "layers.1." not in name}
    write_model(tmp_path / "a", 0, shapes, **FOUR)
    with pytest.raises(RecipeError, match=r"slices\[0\].sources take layer 1 of a, which has none"):
        plan_of(slices((0, 4), method=ALONE), tmp_path, "a")

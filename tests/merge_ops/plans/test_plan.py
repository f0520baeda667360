"""Plans: mergekit's precedence, gradients, filters and order; completeness; digests."""

from dataclasses import replace
from pathlib import Path

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.names.depth import depths, in_order, layer_of, positions
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.plans.plan_json import plan_json
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

LAYER = "model.layers.{}.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("family"), factory.LLAMA, experts=3)


def opened(**folders):
    return {
        name: open_checkpoint(name, FolderSource(Path(folder)), f"digest of {name}")
        for name, folder in folders.items()
    }


def make(family, text, **spoiled):
    folders = {"base": family.base, "a": family.experts[0], "b": family.experts[1], **spoiled}
    recipe = parse_recipe(text, "study", "study.yaml")
    return plan_merge(recipe, opened(**folders))


def weights(plan, name):
    return next(t.parameters[0] for t in plan.steps if t.output.name == name).weight


HEAD = "merge_method: task_arithmetic\nbase_model: base\n"
TWO = "models: [{model: a}, {model: b}]\n"


def test_every_tensor_is_planned_once(family):
    plan = make(family, HEAD + TWO + "parameters: {weight: 1}")
    names = [tensor.output.name for tensor in plan.steps]
    assert sorted(names) == sorted(plan.base.tensors)
    assert plan.bytes_read == 3 * plan.base.nbytes


def test_precedence_model_over_top(family):
    text = (
        HEAD + "models: [{model: a, parameters: {weight: 2}}, {model: b}]\nparameters: {weight: 5}"
    )
    assert weights(make(family, text), LAYER.format(0)) == (2.0, 5.0)


def test_gradients_run_over_the_layers_and_end_tensors_take_the_first_value(family):
    plan = make(family, HEAD + TWO + "parameters: {weight: [0, 1, 4]}")
    # three layers: t = 0, ½, 1
    assert [weights(plan, LAYER.format(layer))[0] for layer in range(3)] == [0.0, 1.0, 4.0]
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert weights(plan, name)[0] == 0.0


def test_a_gradient_between_its_points(family):
    plan = make(family, HEAD + TWO + "parameters: {weight: [0, 3]}")
    assert [weights(plan, LAYER.format(layer))[0] for layer in range(3)] == [0.0, 1.5, 3.0]


def test_filters_first_match_wins_and_no_match_falls_through(family):
    text = HEAD + (
        "models:\n  - model: a\n    parameters:\n      weight:\n"
        "        - {filter: mlp, value: [1, 3]}\n        - {filter: up_proj, value: 9}\n"
        "  - model: b\nparameters: {weight: 7}"
    )
    plan = make(family, text)
    assert weights(plan, LAYER.format(1)) == (2.0, 7.0)
    assert weights(plan, "model.norm.weight") == (7.0, 7.0)


def test_a_missing_required_parameter_is_named(family):
    with pytest.raises(
        RecipeError, match=r"parameters.weight has no value of model 'b' for tensor"
    ):
        make(family, HEAD + "models: [{model: a, parameters: {weight: 1}}, {model: b}]")


def test_the_base_joins_last_when_unlisted(family):
    text = "merge_method: linear\nbase_model: base\n" + TWO + "parameters: {weight: 1}"
    assert [each.name for each in make(family, text).inputs] == ["a", "b", "base"]
    text = "merge_method: linear\nmodels: [{model: base}, {model: a}]\nparameters: {weight: 1}"
    assert [each.name for each in make(family, text).inputs] == ["base", "a"]


def test_slerp_goes_from_the_base_whatever_the_order(family):
    text = "merge_method: slerp\nbase_model: b\n" + TWO + "parameters: {t: 0.5}"
    assert [each.name for each in make(family, text).inputs] == ["b", "a"]


def test_slerp_of_three_is_refused(family):
    text = "merge_method: slerp\nbase_model: base\n" + TWO + "parameters: {t: 0.5}"
    with pytest.raises(RecipeError, match="slerp merges exactly 2 models; got base, a, b"):
        make(family, text)


def test_weights_that_sum_to_zero_are_refused(family):
    text = (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}},"
        " {model: b, parameters: {weight: -1}}]"
    )
    with pytest.raises(RecipeError, match="sums to zero"):
        make(family, text)


def test_a_sweep_shares_one_plan(family):
    text = HEAD + TWO + "parameters: {weight: 1}\nsweep: {lambda: [0.5, 1.0, 1.5]}"
    plan = make(family, text)
    assert [output.coefficient for output in plan.outputs] == [
        "lambda=0.5",
        "lambda=1.0",
        "lambda=1.5",
    ]
    assert len({output.digest for output in plan.outputs}) == 3
    assert [each.lambda_ for each in plan.steps[0].parameters] == [0.5, 1.0, 1.5]


def test_the_digest_is_that_of_the_one_coefficient(family):
    swept = make(family, HEAD + TWO + "parameters: {weight: 1}\nsweep: {lambda: [0.5, 1.0]}")
    single = make(family, HEAD + TWO + "parameters: {weight: 1, lambda: 0.5}")
    assert single.outputs[0].digest == swept.outputs[0].digest


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("weight: 1", "weight: 1.0"), True),
        (("weight: 1", "weight: [1, 1]"), True),
        (("weight: 1", "weight: 2"), False),
        (("weight: 1", "weight: 1, normalize: true"), False),
        (("dtype: float32", "dtype: bfloat16"), False),
        (("dtype: float32", "dtype: float32\nseed: 3"), True),  # nothing random in it
        (("{model: a}, {model: b}", "{model: b}, {model: a}"), False),
    ],
)
def test_the_digest_covers_what_changes_bytes_and_nothing_else(family, change, same):
    text = HEAD + TWO + "parameters: {weight: 1}\ndtype: float32"
    first, second = make(family, text), make(family, text.replace(*change))
    assert (first.outputs[0].digest == second.outputs[0].digest) is same


def test_the_seed_is_part_of_a_random_plan(family):
    text = (
        HEAD.replace("task_arithmetic", "dare_linear")
        + TWO
        + "parameters: {weight: 1, density: .5}"
    )
    first, second = make(family, text), make(family, text + "\nseed: 9")
    assert first.outputs[0].digest != second.outputs[0].digest


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (factory.change_shape, r"b has another shape: 'model.layers.1.mlp.up_proj.weight' is \[95"),
        (factory.add_vocabulary_rows, r"b has another vocabulary: 'model.embed_tokens.weight' is"),
        (factory.swap_tokens, r"b has another vocabulary than base: 2 tokens moved"),
        (factory.drop_tensor, r"b lacks 'model.layers.1.self_attn.o_proj.weight', which base has"),
        (factory.add_tensor, r"b has 'model.layers.1.self_attn.q_norm.weight', which base lacks"),
    ],
)
def test_what_does_not_fit_is_refused(family, tmp_path, spoil, message):
    spoiled = factory.spoiled(family.experts[1], tmp_path / "spoiled", spoil)
    with pytest.raises(CompatibilityError, match=message):
        make(family, HEAD + TWO + "parameters: {weight: 1}", b=spoiled)


def test_another_tokenizer_can_be_accepted_on_purpose(family, tmp_path):
    spoiled = factory.spoiled(family.experts[1], tmp_path / "spoiled", factory.swap_tokens)
    text = HEAD + TWO + "parameters: {weight: 1}\ntokenizer_source: base"
    assert make(family, text, b=spoiled).steps


def test_other_heads_with_equal_shapes_are_refused(family, tmp_path):
    def other_heads(folder):
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(
            config.replace('"num_attention_heads": 4', '"num_attention_heads": 2')
        )

    spoiled = factory.spoiled(family.experts[1], tmp_path / "spoiled", other_heads)
    with pytest.raises(
        CompatibilityError, match=r"num_attention_heads 2 in config.json, base has 4"
    ):
        make(family, HEAD + TWO + "parameters: {weight: 1}", b=spoiled)


def test_tied_embeddings_are_written_once(tmp_path):
    shape = factory.Shape("qwen2", tied=True)
    tied = factory.write_family(tmp_path, shape, experts=2)
    for folder in (tied.base, *tied.experts):
        tensors = factory.read_tensors(folder)
        copy = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        factory.rewrite_weights(folder, tensors | copy)
    plan = make(tied, HEAD + TWO + "parameters: {weight: 1}")
    assert "lm_head.weight" not in {tensor.output.name for tensor in plan.steps}
    assert "tied to the input embedding" in plan.excluded["lm_head.weight"]


def test_layers_are_told_from_names():
    assert layer_of("transformer.encoder.layers.7.mlp.dense_h_to_4h.weight") == (
        "transformer.encoder.layers",
        7,
    )
    assert layer_of("transformer.h.11.attn.c_attn.weight") == ("transformer.h", 11)
    assert layer_of("lm_head.weight") is None
    assert depths(["h.0.w", "norm"]) == {"h.0.w": 1.0, "norm": 0.0}  # one layer only: t = 1


def test_two_stacks_have_depths_of_their_own():
    names = [f"visual.blocks.{n}.w" for n in range(3)] + [f"model.layers.{n}.w" for n in range(5)]
    found = depths(names)
    assert found["visual.blocks.1.w"] == 0.5
    assert found["model.layers.1.w"] == 0.25


def test_integer_tensors_are_copied(family, tmp_path):
    import torch

    copies = {}
    for name, folder in (("base", family.base), ("a", family.experts[0]), ("b", family.experts[1])):

        def add(target):
            extra = {"model.position_ids": torch.arange(7)}
            factory.rewrite_weights(target, factory.read_tensors(target) | extra)

        copies[name] = factory.spoiled(folder, tmp_path / name, add)
    plan = make(replace(family), HEAD + TWO + "parameters: {weight: 1}", **copies)
    actions = {tensor.output.name: tensor.action for tensor in plan.steps}
    assert actions["model.position_ids"] == "copy"


def test_the_order_of_tensors_is_from_input_to_output():
    names = [
        "lm_head.weight", "model.norm.weight", "model.layers.10.a", "model.layers.2.experts.10.w",
        "model.layers.2.experts.9.w", "model.embed_tokens.weight", "embed_out.weight",
    ]  # fmt: skip
    assert in_order(names) == (
        "model.embed_tokens.weight", "model.layers.2.experts.9.w", "model.layers.2.experts.10.w",
        "model.layers.10.a", "model.norm.weight", "embed_out.weight", "lm_head.weight",
    )  # fmt: skip
    found = positions(names)
    head, layer = found["lm_head.weight"], found["model.layers.10.a"]
    assert (head.position, head.count, head.position_in_kind, head.count_of_kind) == (6, 7, 3, 4)
    assert (layer.position, layer.position_in_kind, layer.count_of_kind) == (3, 2, 3)
    assert (layer.in_layer, layer.depth, head.in_layer) == (True, 1.0, False)


BLOCKMERGE = "merge_method: blockmerge\nbase_model: a\nmodels: [{model: b}]\n"


def shares(plan):
    return {tensor.output.name: tensor.parameters[0].share for tensor in plan.steps}


def test_a_gradient_over_the_tensors(family):
    found = shares(make(family, BLOCKMERGE + "parameters: {gradient_values: [0, 1]}"))
    last = len(found) - 1
    assert found["model.embed_tokens.weight"] == 0
    assert found["model.layers.0.input_layernorm.weight"] == pytest.approx(1 / last)
    assert found["model.norm.weight"] == pytest.approx(1 - 1 / last)
    assert found["lm_head.weight"] == 1


def test_a_gradient_over_the_tensors_of_layers_leaves_the_others(family):
    text = BLOCKMERGE + "parameters: {gradient_values: [0.2, 0.8], layer_only: true}"
    found = shares(make(family, text))
    assert [found[name] for name in ("model.embed_tokens.weight", "lm_head.weight")] == [0, 0]
    assert found["model.layers.0.input_layernorm.weight"] == pytest.approx(0.2)
    assert found["model.layers.2.self_attn.v_proj.weight"] == pytest.approx(0.8)


def test_a_filter_chooses_the_list_and_a_sweep_takes_lists(family):
    text = BLOCKMERGE + (
        "parameters: {gradient_values: [{filter: mlp, value: 0.5}, {value: [0, 1]}]}\n"
        "sweep: {layer_only: [false, true]}"
    )
    plan = make(family, text)
    assert shares(plan)[LAYER.format(1)] == 0.5
    plan = make(family, BLOCKMERGE + "sweep: {gradient_values: [[0, 1], [1, 0.5]]}")
    head = next(each for each in plan.steps if each.output.name == "lm_head.weight")
    assert [each.share for each in head.parameters] == [1.0, 0.5]
    first, second = plan.outputs
    assert (first.coefficient, second.coefficient) == (
        "gradient_values=0.0:1.0", "gradient_values=1.0:0.5",
    )  # fmt: skip
    assert first.digest != second.digest


def test_parameters_that_contradict_each_other_are_refused(family):
    with pytest.raises(RecipeError, match="no_layers contradicts layer_only; set at most one"):
        make(
            family,
            BLOCKMERGE + "parameters: {gradient_values: 1, layer_only: true, no_layers: true}",
        )
    with pytest.raises(RecipeError, match="consensus is 3, but 2 experts are merged; it must be"):
        make(family, "merge_method: consensus_ta\nbase_model: base\n" + TWO +
             "parameters: {consensus: 3}")  # fmt: skip


def test_a_gradient_over_the_tensors_needs_values(family):
    with pytest.raises(RecipeError, match="gradient_values has no value for tensor"):
        make(family, BLOCKMERGE)
    with pytest.raises(RecipeError, match=r"gradient_values\[1\] is 'x'; it must be a finite"):
        make(family, BLOCKMERGE + "parameters: {gradient_values: [0, x]}")


@pytest.mark.parametrize(
    ("weight", "noted"),
    [("[0, 1]", True), ("[1]", False), ("0.5", False),
     ("[{filter: mlp, value: [0, 1]}, {value: 1}]", True)],
)  # fmt: skip
def test_the_plan_says_which_value_of_a_gradient_the_head_takes(family, weight, noted):
    shown = plan_json(make(family, HEAD + TWO + f"parameters: {{weight: {weight}}}"))
    assert [("FIRST value" in note) for note in shown["notes"]] == [True] * noted

"""mergekit's other spellings: taken with the same meaning, or a fault that says what is wrong."""

import re

import pytest

from merge_ops.errors import RecipeError
from merge_ops.methods.parameters import evaluate
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.spelling import as_written_here, reference, whole_number


def parse(text):
    return parse_recipe(text, "study", "study.yaml")


def refused(text, expected):
    with pytest.raises(RecipeError, match=re.escape(expected)):
        parse(text)


TIES = """
merge_method: ties
base_model: base
models: [{model: a}, {model: b}]
parameters: {weight: 1, normalize: VALUE}
"""


@pytest.mark.parametrize("written", ["true", "1", "1.0", '"yes"', '"True"', "on", '"1"', '"t"'])
def test_what_is_true(written):
    recipe = parse(TIES.replace("VALUE", written))
    spec = recipe.method.parameter_specs["normalize"]
    assert evaluate(spec, recipe.parameters["normalize"], "x", 0.0) is True


@pytest.mark.parametrize("written", ["false", "0", "0.0", '"No"', '"off"', "off", '"0"', '"f"'])
def test_what_is_false(written):
    recipe = parse(TIES.replace("VALUE", written))
    spec = recipe.method.parameter_specs["normalize"]
    assert evaluate(spec, recipe.parameters["normalize"], "x", 0.0) is False


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("1.0", "l1_norm"),
        ('"yes"', "l1_norm"),
        ("true", "l1_norm"),
        ("0", "none"),
        ("no", "none"),
        ("none", "none"),
    ],
)
def test_booleans_of_a_parameter_with_choices(written, name):
    recipe = parse(TIES.replace("normalize: VALUE", f"rescale: {written}"))
    spec = recipe.method.parameter_specs["rescale"]
    assert evaluate(spec, recipe.parameters["rescale"], "x", 0.0) == name


@pytest.mark.parametrize("written", ["2", "0.5", '"maybe"', "1.0e-3", '" yes"', "-1"])
def test_what_is_neither(written):
    with pytest.raises(RecipeError, match=r"parameters.normalize is .*; it must be true or false"):
        parse(TIES.replace("VALUE", written))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("org/name@main", "org/name@main"),
        ({"model": "a"}, "a"),
        ({"model": {"path": "a"}}, "a"),
        ({"model": {"path": "a", "revision": "v1"}, "lora": None}, "a@v1"),
        ({"model": {"path": "a", "revision": None}, "lora": "b"}, "a+b"),
        ({"model": "a", "lora": {"path": "b", "revision": "v2"}}, "a+b@v2"),
        ({"model": "a", "lora": {"path": "b"}, "override_architecture": None}, "a+b"),
        ({"path": "a", "revision": "v1"}, "a@v1"),
    ],
)
def test_model_references(written, name):
    assert reference(written) == name


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{model: {pth: a}}", "model.model.pth is no key of a model reference (path, revision)"),
        ("{model: {path: 3}}", "model.model.path is 3; it must be text, in quotes"),
        ("{modle: a}", "model.modle is no key of a model reference (model, lora, override"),
        ("{lora: a}", "model.model is None; it must be a path, or {path, revision}"),
        ("{model: a, override_architecture: B}", "tensors are matched by their names"),
        ("7", "models[0].model is 7; it must name a model"),
        ("[a]", "models[0].model is ['a']; it must name a model"),
        ("", "models[0].model must name a model: a folder, org/name, or base+adapter"),
    ],
)
def test_no_model_references(written, problem):
    refused(f"merge_method: linear\nmodels: [{{model: {written}}}]", problem)


def test_a_model_is_listed_once_however_it_is_written():
    text = "merge_method: linear\nmodels: [{model: a}, {model: {model: {path: a}}}]"
    refused(text, "models[1].model is 'a' again, as in models[0]")


def test_references_everywhere():
    recipe = parse("""
merge_method: task_arithmetic
base_model: {model: base}
modules:
  default:
    merge_method: task_arithmetic
    slices:
      - base_model: {model: {path: other}}
        sources:
          - {model: {model: a}, layer_range: [0.0, "2"]}
          - {model: {model: other}, layer_range: [0, 2]}
tokenizer:
  source: {model: a}
  pad_to_multiple_of: 64.0
  tokens:
    x: {source: {model: {path: b}}, force: 1.0}
    y: {source: {kind: model_token, model: {model: c}, token_id: 3.0}}
dtype: torch.bfloat16
""")
    assert recipe.referenced_models == ("a", "other", "base", "b", "c")
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.pad_to_multiple_of == 64
    assert recipe.tokenizer.rules["x"].force is True
    row = recipe.tokenizer.rules["y"].row
    assert row is not None
    assert row.token_id == 3
    assert recipe.dtype == "bfloat16"
    assert recipe.modules["default"].slices[0].sources[0].layer_range == (0, 2)


SLICE = """
merge_method: linear
slices:
  - merge_method: METHOD
    sources: [{model: a, layer_range: [0, 2], parameters: {weight: 1}}]
"""


def test_a_slice_may_repeat_the_method():
    assert parse(SLICE.replace("METHOD", "linear")).slices[0].sources[0].model == "a"


def test_a_slice_may_not_have_another_method():
    problem = "slices[0].merge_method is 'slerp', and the recipe's is 'linear': a recipe has one"
    refused(SLICE.replace("METHOD", "slerp"), problem)
    whole = "merge_method: linear\nmodels: [{model: a, merge_method: linear}]"
    refused(whole, "models[0].merge_method is 'linear', and the recipe's is 'linear'")


def test_a_document_stays_as_it_is():
    document = {"merge_method": "linear", "models": [{"model": {"model": "a"}}]}
    assert as_written_here(document)["models"] == [{"model": "a"}]
    assert document["models"] == [{"model": {"model": "a"}}]


@pytest.mark.parametrize("value", [3, 3.0, "3", "+3"])
def test_whole_numbers(value):
    assert whole_number(value) == 3
    assert type(whole_number(value)) is int


@pytest.mark.parametrize("value", [3.5, "3.5", None, True, "9" * 5000, float("inf"), [3]])
def test_no_whole_numbers(value):
    assert whole_number(value) is value

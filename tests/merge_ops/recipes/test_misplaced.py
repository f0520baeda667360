"""Keys in the wrong place: the fault says where they belong."""

import re

import pytest

from merge_ops.errors import RecipeError
from merge_ops.recipes.reading import parse_recipe

GOOD = """
merge_method: slerp
base_model: a
models:
  - {model: a}
  - {model: b}
parameters: {t: 0.5}
"""
SLICES = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
"""


def parse(text):
    return parse_recipe(text, "study", "study.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace("model: b", "model: b, dtype: float16"), "models[1].dtype is no key of a"),
        (GOOD.replace("model: b", "model: b, dtype: float16"), "It is one for the whole recipe;"),
        (GOOD.replace("model: b", "model: b, weight: 1"), "It is a parameter; write it below `pa"),
        (GOOD.replace("model: b", "model: b, layer_range: [0, 2]"), "It belongs to a source of"),
        (GOOD + "weight: 1", "weight is no key of a recipe. It is a parameter; write it below"),
        (GOOD + "model: c", "model is no key of a recipe. It belongs to an entry of `models`"),
        (GOOD + "int8_mask: true", "It is a parameter; write it below `parameters`"),
        (GOOD + "random_seed: 42", "random_seed is no key of a recipe. It is `seed` here"),
        (GOOD + "allow_crimes: true", "It is an option of mergekit's command line"),
        (GOOD + "out_shard_size: 5B", "coming-from-mergekit.md says what stands for it"),
        (GOOD + "base-model: a", "base-model is no key of a recipe. Did you mean 'base_model'?"),
        (GOOD + "Tokenizer-Source: a", "Did you mean 'tokenizer_source'?"),
        (GOOD.replace("{t: 0.5}", "{t: 0.5, dtype: float16}"), "dtype is no parameter: it is a ke"),
        (GOOD.replace("{t: 0.5}", "{t: 0.5, merge_method: x}"), "is a key of the recipe; move it"),
        (GOOD.replace("{t: 0.5}", "{parameters: {t: 1}}"), "move what is below it one level up"),
        (GOOD.replace("{t: 0.5}", "{t: 0.5, density: 1}"), "density has no effect on slerp; rem"),
        (GOOD.replace("{t: 0.5}", "{t: 0.5, normalize: 1.0}"), "normalize has no effect on sler"),
        (GOOD.replace("{t: 0.5}", "{t: 0.5, value: 1}"), "It belongs to a condition".lower()),
        (SLICES.replace("]}]", "]}]\n    residual_weight: 1"), "It has no effect in mergekit e"),
        (SLICES.replace("]}]", "]}]\n    dtype: float16"), "slices[0].dtype is no key of a slice."),
        (GOOD.replace("{model: b}", "b"), "models[1] is 'b'; it must be a mapping with 'model': w"),
        (GOOD.replace("{model: b}", "model:b"), "write `- model: b`, with a space"),
        (GOOD + "dtype: bf16", "dtype is 'bf16'; it must be one of float32, float16, bfloat16. D"),
        (GOOD + "dtype: fp16", "Did you mean 'float16'?"),
        (GOOD + "dtype: half", "Did you mean 'float16'?"),
        (GOOD + "tokenizer_source: model:a", "as an earlier mergekit had it; write 'a'"),
    ],
)
def test_where_it_belongs(text, expected):
    with pytest.raises(RecipeError, match=re.escape(expected)):
        parse(text)


@pytest.mark.parametrize("name", ["DARE-TIES", "Dare Ties", "dare-ties", "DARE_TIES"])
def test_methods_in_other_writing(name):
    with pytest.raises(RecipeError, match=r"Did you mean 'dare_ties'\?"):
        parse(GOOD.replace("slerp", name))


@pytest.mark.parametrize(("name", "meant"), [("TIES", "ties"), ("SLERP", "slerp"), ("Linear", "l")])
def test_methods_in_capitals(name, meant):
    with pytest.raises(RecipeError, match=f"Did you mean '{meant}"):
        parse(GOOD.replace("slerp", name))


@pytest.mark.parametrize("extra", ["int8_mask: 1.0", "int8_mask: true", "normalize: false"])
def test_what_changes_nothing_is_taken_by_every_method(extra):
    recipe = parse(GOOD.replace("{t: 0.5}", f"{{t: 0.5, {extra}}}"))
    assert recipe.parameters["t"] == 0.5


EXAMPLES = {
    "gradients and filters": """
models:
  - model: org/one-13b
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: org/two-13B-V1.0
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: org/base-13B-fp16
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    "slices of two": """
slices:
  - sources:
      - model: org/one
        layer_range: [0, 40]
      - model: org/two
        layer_range: [0, 40]
merge_method: slerp
base_model: org/one
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: float16
""",
    "a stack of one each": """
slices:
  - sources:
    - model: org/one
      layer_range: [0, 24]
  - sources:
    - model: org/two
      layer_range: [20, 40]
merge_method: passthrough
dtype: float16
""",
    "a name, a tokenizer, several levels": """
name: Result-7B
merge_method: dare_ties
base_model: org/base
models:
  - model: org/base
  - {model: org/one, parameters: {density: 1, weight: 1}}
  - {model: org/two+org/adapter, parameters: {density: 0.5}}
parameters: {weight: 0.5, rescale: 1.0, lambda: 1}
tokenizer_source: union
chat_template: auto
out_dtype: bfloat16
""",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_recipes_as_examples_and_cards_have_them(name):
    recipe = parse(EXAMPLES[name])
    assert recipe.referenced_models[0].startswith("org/")

"""mergekit-moe files: what each says wrong is told at once, and what it says right is kept."""

import pytest

from merge_ops.errors import RecipeError
from merge_ops.recipes import check_recipe
from merge_ops.recipes.document import nameless_document, recipe_document, with_names

PROMPTED = [
    {"source_model": "a", "positive_prompts": ["x"]},
    {"source_model": "b", "positive_prompts": ["y"], "noise_scale": 0.1},
]
SOUND = {"base_model": "base", "experts": PROMPTED}


def test_the_practitioners_file_has_hidden_gates():
    recipe = check_recipe(SOUND, "mixture", "mixture.yaml")
    assert recipe.moe is not None
    assert (recipe.moe.gate_mode, recipe.moe.needs_prompts) == ("hidden", True)
    assert recipe.referenced_models == ("base", "a", "b")


def test_a_recipe_survives_being_written_and_losing_its_names():
    shared = [{"source_model": "base", "residual_scale": 0.5}]
    told = {**SOUND, "shared_experts": shared, "experts_per_token": 2, "dtype": "torch.bfloat16"}
    recipe = check_recipe(told, "mixture", "mixture.yaml")
    again = check_recipe(recipe_document(recipe, {}), "mixture", "mixture.yaml")
    assert (again.moe, again.dtype) == (recipe.moe, "bfloat16")
    document, names = nameless_document(recipe, {}, ())
    nameless = check_recipe(document, "mixture", "mixture.yaml")
    assert nameless.referenced_models == ("#1", "#2", "#3")
    assert with_names(nameless, {number: name for name, number in names.items()}).moe == recipe.moe


FAULTS = {
    "gatemode is no key of a mixture .* Did you mean 'gate_mode'": {"gatemode": "random"},
    "sweep is for merges; a mixture of experts has no parameters": {"sweep": {"weight": [1.0]}},
    "suite is 1; it must be the name of a suite": {"suite": 1},
    "keep is 'champion', and gates that are made of prompts are written": {"keep": "champion"},
    "base_model is missing; it gives attention": {"base_model": None},
    "gate_mode is 'hiden'; it must be one of .* Did you mean 'hidden'": {"gate_mode": "hiden"},
    "dtype is 'float8'; it must be one of float32": {"dtype": "float8"},
    "architecture is 'Phi'; it must be how one of these begins: Mixtral": {"architecture": "Phi"},
    "experts_per_token is 0; it must be a whole number from 1 to 2": {"experts_per_token": 0},
    "experts_per_token is 3; it must be a whole number": {"experts_per_token": 3},
    "experts is empty; list at least one": {"experts": [], "gate_mode": "random"},
    "mixture.yaml: experts is empty; list at least one": {"experts": []},
    r"experts\[0\].positive_prompts is missing: gates are made": {
        "experts": [{"source_model": "a"}]
    },
    r"experts\[0\].positive_prompts is 'x'; it must be a list": {
        "experts": [{"source_model": "a", "positive_prompts": "x"}]
    },
    r"experts\[0\].weight is no key of an expert": {"experts": [{**PROMPTED[0], "weight": 1}]},
    r"experts\[0\].noise_scale is -1; it must be": {
        "experts": [{**PROMPTED[0], "noise_scale": -1}]
    },
    r"experts\[1\] is 'b'; it must be a mapping": {"experts": [PROMPTED[0], "b"]},
    "experts have the same prompts": {
        "experts": [PROMPTED[0], {**PROMPTED[0], "source_model": "b"}]
    },
    "experts are one model, so that routing changes nothing": {
        "experts": [PROMPTED[0], {"source_model": "a", "positive_prompts": ["y"]}]
    },
    "shared_experts lists 2 models; the families have one": {"shared_experts": PROMPTED},
    r"shared_experts\[0\].positive_prompts has no effect in DeepSeek": {
        "shared_experts": PROMPTED[:1],
        "architecture": "deepseek",
    },
    "seed is -1; it must be a whole number": {"seed": -1},
    r"experts\[0\].texts is 3; it must name a file": {"experts": [{**PROMPTED[0], "texts": 3}]},
    r"experts\[0\].texts and `positive_prompts` say one thing": {
        "experts": [{**PROMPTED[0], "texts": "a.txt"}]
    },
}


@pytest.mark.parametrize("told", FAULTS)
def test_what_is_wrong_is_told(told):
    with pytest.raises(RecipeError, match=told):
        check_recipe({**SOUND, **FAULTS[told]}, "mixture", "mixture.yaml")


def test_all_of_it_is_told_at_once():
    wrong = {**SOUND, "gatemode": "x", "dtype": "float8", "experts_per_token": 9}
    with pytest.raises(RecipeError, match="3 faults"):
        check_recipe(wrong, "mixture", "mixture.yaml")


def test_drawn_gates_need_no_prompts_and_take_one_model():
    experts = [{"source_model": "a"}, {"source_model": "a"}]
    recipe = check_recipe({"base_model": "a", "experts": experts, "gate_mode": "uniform_random"},
                          "mixture", "mixture.yaml")  # fmt: skip
    assert recipe.moe is not None
    assert not recipe.moe.needs_prompts
    assert recipe_document(recipe, {})["seed"] == 0

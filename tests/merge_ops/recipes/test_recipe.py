"""Recipes: what is accepted, what it means, and every fault with its place and a way out."""

import pytest

from merge_ops.errors import RecipeError, UnknownMethodError
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.recipe import set_id
from merge_ops.recipes.steps import load_steps
from merge_ops.recipes.sweep import LONGEST_ID

GOOD = """
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: 0.5, density: [0.2, 0.8]}
  - model: b
    parameters:
      weight:
        - {filter: mlp, value: 1.0}
        - {value: 0.25}
parameters: {lambda: 1.1, normalize: false, int8_mask: true}
dtype: float32
"""


def parse(text):
    return parse_recipe(text, "study", "study.yaml")


def faults(text, kind=RecipeError):
    with pytest.raises(kind) as caught:
        parse(text)
    return str(caught.value)


def test_a_mergekit_file_is_a_recipe():
    recipe = parse(GOOD)
    assert recipe.merge_method == "ties"
    assert recipe.referenced_models == ("a", "b", "base")
    assert [point.id for point in recipe.coefficients()] == ["default"]


def test_every_fault_at_once():
    message = faults(
        GOOD.replace("density: [0.2, 0.8]", "density: 1.5, wieght: 2")
        .replace("dtype: float32", "dtpye: float32\nseed: -1")
        .replace("value: 1.0", "valeu: 1.0")
    )
    for part in (
        "6 faults",
        "models[0].parameters.density is 1.5; it must be above 0 and at most 1 (the share of"
        " entries kept)",
        "wieght is no parameter of ties. Did you mean 'weight'?",
        "dtpye is no key of a recipe. Did you mean 'dtype'?",
        "seed is -1; it must be a whole number from 0 on",
        "valeu is no key of a condition (filter, value). Did you mean 'value'?",
        "models[1].parameters.weight[0] has no 'value'",
    ):
        assert part in message


def test_unknown_method():
    message = faults(GOOD.replace("ties", "tiess"), UnknownMethodError)
    assert "no merge method is called 'tiess'. Did you mean 'ties'?" in message
    assert "dare_linear" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("lambda: 1.1", "lambda: .inf"), "parameters.lambda is inf; it must be a finite number"),
        (("normalize: false", "normalize: 2"), "normalize is 2; it must be true or false"),
        (("weight: 0.5,", "weight: 0.5, normalize: true,"), "move it to the top `parameters`"),
        (("base_model: base", ""), "base_model is missing; ties needs one"),
        (("- model: b", "- model: a"), "models[1].model is 'a' again"),
        (("dtype: float32", "dtype: fp32"), "dtype is 'fp32'; it must be one of float32"),
        (("dtype: float32", "slices: []"), "slices must be a list of {sources, parameters}"),
        (("dtype: float32", "modules: {}"), "modules cannot stand beside `models`"),
        (("dtype: float32", "tokenizer_source: [union]"), "tokenizer_source is ['union']"),
        (("dtype: float32", "sweep: {densty: [0.1]}"), "sweep.densty is no parameter of ties. Did"),
        (("dtype: float32", "sweep: {density: 0.1}"), "sweep.density must be a list of values"),
        (("dtype: float32", "sweep: {density: [0.1, 0]}"), "sweep.density[1] is 0; it must be"),
        (("dtype: float32", "sweep: {lambda: [1, 1]}"), "sweep.lambda names a value twice"),
        (("dtype: float32", "sweep: {lambda: [1, 1.0]}"), "sweep.lambda names a value twice"),
        (("dtype: float32", "sweep: {lambda: [1e-1, 0.1]}"), "sweep.lambda names a value twice"),
        (("dtype: float32", "sweep: {normalize: [true, 'yes']}"), "names a value twice: True, yes"),
        (
            ("dtype: float32", "sweep: {lambda: [[{filter: /../../x, value: 1}]]}"),
            "sweep.lambda[0] has a filter; the values of a sweep are numbers",
        ),
        (("dtype: float32", "sweep: {weight: [1, 2]}"), "has no effect: every model sets this"),
        (("density: [0.2, 0.8]", "density: []"), "is an empty list"),
        (("merge_method: ties", "merge_method: 3"), "merge_method is missing"),
    ],
)
def test_faults(change, expected):
    assert expected in faults(GOOD.replace(*change))


def test_parameters_without_effect_are_refused():
    text = GOOD.replace("ties", "task_arithmetic").replace("lambda: 1.1", "rescale: true")
    message = faults(text)
    assert "parameters.rescale has no effect on task_arithmetic; remove it" in message
    assert "models[0].parameters.density has no effect on task_arithmetic" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 1", "is no mapping"),
        ("a: [", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "holds 2 YAML documents"),
        ("merge_method: linear\nmodels: x", "models must be a list"),
        ("merge_method: linear\nmodels: [x]", "models[0] is 'x'; it must be a mapping"),
        ("merge_method: linear", "models is missing"),
    ],
)
def test_not_even_a_recipe(text, expected):
    assert expected in faults(text)


def test_every_key_given_twice_is_named_with_its_place_and_lines():
    twice = GOOD + "parameters: {lambda: 1}\nslices: [{sources: []}, {sources: [], sources: []}]\n"
    text = faults(twice.replace("{weight: 0.5,", "{weight: 0.5, weight: 0.6,"))
    assert text.startswith("study.yaml: 3 faults\n")
    assert "models[0].parameters.weight is given twice, on line 6 and on line 6" in text
    assert "parameters is given twice, on line 12 and on line 14; remove one" in text
    assert "slices[1].sources is given twice, on line 15 and on line 15" in text


def test_a_merge_key_may_be_overridden():
    shared = "shared: &all {weight: 1, density: 0.5}\n"
    text = GOOD.replace("{weight: 0.5, density: [0.2, 0.8]}", "{<<: *all, density: 0.25}")
    assert "is no key of a recipe" in faults(shared + text)
    parameters = parse(text.replace("<<: *all, ", "<<: {weight: 1, density: 0.5}, ")).models[0]
    assert parameters.parameters == {"weight": 1, "density": 0.25}


def test_unreadable_file(tmp_path):
    with pytest.raises(RecipeError, match="the file cannot be read"):
        load_steps(tmp_path / "none.yaml")


def test_a_sweep_is_the_product_of_its_values():
    text = GOOD.replace("dtype: float32", "sweep: {lambda: [0.5, 1], density: [0.2, [0.1, 0.9]]}")
    ids = [point.id for point in parse(text).coefficients()]
    assert ids == [
        "density=0.2_lambda=0.5",
        "density=0.2_lambda=1.0",
        "density=0.1:0.9_lambda=0.5",
        "density=0.1:0.9_lambda=1.0",
    ]


CATALOG = """
merge_method: ties
experts: [all-pairs, all, [c, a]]
parameters: {weight: 1.0}
"""


def test_an_id_of_long_gradients_is_short_enough_for_a_folder_and_its_own():
    first, second = [0.5] * 90, [0.5] * 89 + [0.25]
    text = GOOD.replace("dtype: float32", f"sweep: {{density: [{first}, {second}, 0.5]}}")
    long, other, short = (point.id for point in parse(text).coefficients())
    assert short == "density=0.5"
    assert len(long.encode()) == len(other.encode()) == LONGEST_ID
    assert long[:140] == other[:140]
    assert long != other, "equal beginnings are two points"


def test_expert_sets():
    recipe = parse(CATALOG)
    sets = [set_id(names) for names in recipe.expert_sets(["b", "c", "a"])]
    assert sets == ["a+b", "a+c", "b+c", "a+b+c"]  # [c, a] is the pair a+c again


def test_slerp_takes_pairs_only():
    text = "merge_method: slerp\nexperts: [all, all-pairs]\nparameters: {t: 0.5}"
    assert len(parse(text).expert_sets(["a", "b", "c"])) == 3


def test_a_recipe_for_one_set_is_a_mergekit_file():
    recipe = parse(CATALOG).for_experts(("b", "a"), base="origin")
    assert recipe.referenced_models == ("a", "b", "origin")
    assert recipe.base_model == "origin"


def test_slerp_starts_at_the_first_expert():
    text = "merge_method: slerp\nexperts: all-pairs\nparameters: {t: 0.5}"
    recipe = parse(text).for_experts(("b", "a"), base="origin")
    assert recipe.base_model == "a"
    assert recipe.referenced_models == ("a", "b")


def test_listed_models_join_every_set_with_their_parameters():
    text = (
        "merge_method: linear\nexperts: all\nsweep: {weight: [1, 2]}\n"
        "models: [{model: origin, parameters: {weight: 1}}]"
    )
    recipe = parse(text).for_experts(("b", "a"), base="origin")
    assert recipe.referenced_models == ("origin", "a", "b")
    assert recipe.models[0].parameters == {"weight": 1}


def test_wrong_expert_selection():
    message = faults(CATALOG.replace("all-pairs", "al-pairs"))
    assert "experts[0] is 'al-pairs'" in message
    assert "Did you mean 'all-pairs'?" in message


def test_what_is_kept_follows_from_keep_and_the_suite():
    assert parse(GOOD).kept == "all"
    assert parse(f"{GOOD}suite: s\n").kept == "champion"
    for keep in ("champion", "all", "none"):
        assert parse(f"{GOOD}suite: s\nkeep: {keep}\n").kept == keep
    assert parse(f"{GOOD}keep: none\n").kept == "none"
    assert (
        "keep is 'champions'; it must be one of champion, all, none. Did you mean 'champion'?"
        in faults(f"{GOOD}suite: s\nkeep: champions\n")
    )
    assert "keep is 'champion', and a recipe without a suite never has one" in faults(
        f"{GOOD}keep: champion\n"
    )

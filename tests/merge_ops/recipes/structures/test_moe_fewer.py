"""`moe:` in a recipe: every fault at once, told from the document alone."""

import pytest

from merge_ops.errors import RecipeError
from merge_ops.recipes.reading import parse_recipe


def faults(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "less", "less.yaml")
    return str(caught.value)


def test_a_step_is_read_with_what_it_leaves_to_us() -> None:
    text = "moe: {keep: 0.5, method: m_smoe, statistics: s}\nmodels: [{model: m}]\n"
    step = parse_recipe(text, "less", "less.yaml").fewer
    assert step is not None
    assert (step.keep, step.method, step.statistics) == (0.5, "m_smoe", "s")
    assert (step.router, step.experts_per_token, step.merges) == ("first", None, True)


@pytest.mark.parametrize(
    ("keep", "experts", "kept"), [(0.5, 6, 3), (0.5, 5, 3), (0.1, 60, 6), (0.7, 10, 7), (3, 8, 3)]
)
def test_a_share_is_rounded_up(keep: float, experts: int, kept: int) -> None:
    text = f"moe: {{keep: {keep}, method: reap, statistics: s}}\nmodels: [{{model: m}}]\n"
    step = parse_recipe(text, "less", "less.yaml").fewer
    assert step is not None
    assert step.number_of(experts) == kept


def test_all_faults_are_told_at_once() -> None:
    told = faults(
        "moe: {keep: 1.5, method: reep, statistic: s, experts_per_token: 0}\n"
        "merge_method: linear\nbase_model: b\nrouter: base\n"
        "models: [{model: m}, {model: n}]\nparameters: {weight: 1}\n"
    )
    for each in (
        "moe.keep is 1.5; it must be a whole number from 1 on, the moe_experts of each layer, or a",
        "moe.method is 'reep'; allowed: reap, frequency, hc_smoe, m_smoe. Did you mean 'reap'?",
        "moe.statistic is unknown; allowed: keep, method, statistics, texts, experts_per_token, ",
        "Did you mean 'statistics'?",
        "moe.statistics is missing; it must name a file that `ronghe moe-saliency MODEL TEXTS",
        "moe.experts_per_token is 0; it must be a whole number from 1 on",
        "merge_method is 'linear'; a step that has `moe` merges nothing: leave it out",
        "router has no place beside `moe`, which changes one mixture; write it below `moe`",
        "base_model has no place beside `moe`",
        "models must list just the one model that `moe` is for",
    ):
        assert each in told


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("smaller", "moe is 'smaller'; it must be a mapping such as `{keep: 4, method: reap"),
        ("{method: reap, statistics: s}", "moe.keep is missing; it must be a whole number"),
        ("{keep: true, method: reap, statistics: s}", "moe.keep is True"),
        ("{keep: 1.0, method: reap, statistics: s}", "moe.keep is 1.0"),
        (
            "{keep: 2, method: reap, statistics: s, router: mean}",
            "moe.router has no effect on reap",
        ),
        ("{keep: 2, method: hc_smoe, statistics: s, router: sum}", "moe.router is 'sum'; allowed:"),
        ("{keep: 2, method: hc_smoe, statistics: ''}", "moe.statistics is ''; it must name a file"),
    ],
)
def test_impossible_values_are_faults(table: str, told: str) -> None:
    assert told in faults(f"moe: {table}\nmodels: [{{model: m}}]\n")
    weighed = "moe: {keep: 2, method: reap, statistics: s}\nmodels: [{model: m, parameters: {}}]\n"
    assert "models[0].parameters has no place beside `moe`" in faults(weighed)

"""A recipe's `search`: what its method decides, and a recipe at one point of it."""

from pathlib import Path
from typing import Any

import pytest

from merge_ops.errors import RecipeError
from merge_ops.recipes.recipe_check import check_recipe
from merge_ops.recipes.steps import load_steps

TIES: dict[str, Any] = {"merge_method": "ties", "experts": "all-pairs", "suite": "quickstart"}
LAMBDA = {"lambda": {"low": 0.5, "high": 1.5}}


def checked(**keys: Any) -> Any:
    return check_recipe({**TIES, **keys}, "ties", "ties.yaml")


def test_a_search_is_one_coefficient() -> None:
    recipe = checked(search={"parameters": LAMBDA})
    assert [point.id for point in recipe.coefficients()] == ["searched"]
    assert recipe.search == {"parameters": LAMBDA}


def test_required_parameters_may_be_searched() -> None:
    weight = {"weight": {"low": 0.0, "high": 1.0, "per": "expert"}}
    assert "weight" not in checked(search={"parameters": weight}).missing_parameters


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"search": []}, r"search is \[\]; it must be a mapping"),
        ({"search": {"parameters": LAMBDA}, "sweep": {"density": [0.5]}}, r"stands beside `sweep`"),
        ({"search": {"parameters": LAMBDA}, "suite": None}, r"search needs a `suite`"),
        (
            {"search": {"parameters": {"lamda": {"low": 0.5, "high": 1.0}}}},
            r"search.parameters.lamda is no parameter of ties.*Did you mean 'lambda'",
        ),
        (
            {"search": {"parameters": {"density": {"low": 0.0, "high": 1.0}}}},
            r"search.parameters.density.low is 0.0; it must be above 0 and at most 1",
        ),
        (
            {"search": {"parameters": {"density": {"values": [0.5, 2]}}}},
            r"search.parameters.density.values\[1\] is 2; it must be above 0",
        ),
        (
            {"search": {"parameters": {"normalize": {"low": 0, "high": 1}}}},
            r"search.parameters.normalize must be true or false .*: give `values`",
        ),
        (
            {"search": {"parameters": {"lambda": {"low": 0, "high": 1, "per": "expert"}}}},
            r"is `per: expert`, and ties has one lambda for all",
        ),
        (
            {
                "search": {"parameters": {"density": {"low": 0.1, "high": 1}}},
                "experts": None,
                "base_model": "base",
                "models": [{"model": "a", "parameters": {"density": 0.5, "weight": 1.0}}],
            },
            r"search.parameters.density has no effect: every model sets this",
        ),
    ],
)
def test_faults(keys: dict[str, Any], told: str) -> None:
    given = {key: value for key, value in {**TIES, **keys}.items() if value is not None}
    with pytest.raises(RecipeError, match=told):
        check_recipe(given, "ties", "ties.yaml")


def test_a_recipe_at_a_point(tmp_path: Path) -> None:
    file = tmp_path / "ties.yaml"
    file.write_text(
        "merge_method: ties\nbase_model: base\nparameters: {density: 0.5, lambda: 1.0}\n"
        "models:\n- {model: a, parameters: {weight: 1.0}}\n"
        "- {model: b, parameters: {weight: 1.0}}\n"
    )
    recipe = load_steps(file).result
    at = recipe.at({"lambda": 0.7}, {"b": {"weight": 0.25}})
    assert at.parameters == {"density": 0.5, "lambda": 0.7}
    assert [dict(each.parameters) for each in at.models] == [{"weight": 1.0}, {"weight": 0.25}]
    assert [dict(each.parameters) for each in recipe.models] == [{"weight": 1.0}] * 2

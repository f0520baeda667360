"""`accept_licence_conflicts` in a recipe."""

import pytest

from merge_ops.errors import RecipeError
from merge_ops.recipes import parse_recipe

HEAD = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"


def test_conflicts_are_accepted_by_name() -> None:
    recipe = parse_recipe(f"{HEAD}accept_licence_conflicts: [gpl-3.0 + llama3.1]\n", "r", "r.yaml")
    assert recipe.accept_licence_conflicts == ("gpl-3.0 + llama3.1",)
    assert parse_recipe(HEAD, "r", "r.yaml").accept_licence_conflicts == ()


@pytest.mark.parametrize("wrong", ["true", "gpl-3.0", "[1]", "['']", "{a: b}"])
def test_anything_else_is_refused(wrong: str) -> None:
    with pytest.raises(RecipeError, match=r"it must be a list such as \[gpl-3\.0 \+ llama3\.1\]"):
        parse_recipe(f"{HEAD}accept_licence_conflicts: {wrong}\n", "r", "r.yaml")

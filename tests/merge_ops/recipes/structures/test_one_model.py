"""Steps that change one model: two in one document would need an order, so they are two."""

import itertools

import pytest
import yaml

from merge_ops.errors import RecipeError
from merge_ops.recipes.reading import parse_recipe

STEPS = {
    "moe": {"keep": 4, "method": "reap", "statistics": "seen.json"},
    "convert": "llama",
    "expand": {"layers": 40, "every": 4},
    "vocabulary": {"extend": "chinese"},
    "protect": {"key": "key.json"},
    "align": "base",
}


@pytest.mark.parametrize("two", list(itertools.combinations(STEPS, 2)), ids=" and ".join)
def test_two_steps_in_one_document_are_refused(two):
    document = {"models": [{"model": "a"}], **{each: STEPS[each] for each in two}}
    with pytest.raises(RecipeError, match=r"has no place beside|are two steps"):
        parse_recipe(yaml.safe_dump(document), "study", "study.yaml")


@pytest.mark.parametrize("key", STEPS)
@pytest.mark.parametrize(
    "other", [{"soup": "greedy"}, {"router": "base"}, {"window": {"run": "r", "last": 2}}], ids=str
)
def test_what_belongs_to_a_merge_is_refused_beside_a_step(key, other):
    document = {"models": [{"model": "a"}], "base_model": "b", key: STEPS[key], **other}
    (named,) = other
    with pytest.raises(RecipeError, match=f"{named} has no place beside `{key}`"):
        parse_recipe(yaml.safe_dump(document), "study", "study.yaml")

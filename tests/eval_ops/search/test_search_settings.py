"""A recipe's `search`: every fault with its place, and the space that it stands for."""

import pytest

from eval_ops.errors import SearchError
from eval_ops.search import check_search, space_of

LAMBDA = {"lambda": {"low": 0.5, "high": 1.5}}


def test_defaults() -> None:
    settings = check_search({"parameters": LAMBDA})
    assert (settings.sampler, settings.trials, settings.objectives) == ("tpe", 40, ("mean",))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"parameters is missing; it must be given"),
        ([], r"must be a mapping with at least `parameters`"),
        ({"parameters": {}}, r"parameters is \{\}; .* at least 1 item"),
        ({"parameters": LAMBDA, "sampler": "tpo"}, r"sampler is 'tpo'; it must be 'random'"),
        ({"parameters": LAMBDA, "trails": 4}, r"trails is not a known key. Did you mean 'trials'"),
        ({"parameters": LAMBDA, "trials": 0}, r"trials is 0; it must be greater than or equal"),
        ({"parameters": {"t": {"low": 0.5}}}, r"parameters.t: give either `low` and `high`"),
        ({"parameters": {"t": {}}}, r"parameters.t: give either `low` and `high`"),
        (
            {"parameters": {"t": {"low": 1.0, "high": 1.0}}},
            r"low is 1 and high 1; low must be below high",
        ),
        (
            {"parameters": {"t": {"low": 0.0, "high": 1.0, "log": True}}},
            r"low is 0; with `log` it must be above 0",
        ),
        (
            {"parameters": {"t": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}},
            r"`log` and `step` cannot be given together",
        ),
        (
            {"parameters": {"t": {"low": 0.0, "high": 1.0, "step": 2.0}}},
            r"step is 2; it must fit between low and high",
        ),
        ({"parameters": {"t": {"values": [1, 1.0]}}}, r"values names one twice"),
        ({"parameters": {"t": {"values": [1], "log": True}}}, r"go with low and high, not with"),
        (
            {"parameters": {"t": {"low": 0.0, "high": 1.0, "per": "layers"}}},
            r"`points` says how many anchors `per: layers` has",
        ),
        (
            {"parameters": {"t": {"low": 0.0, "high": 1.0, "per": ["mlp", "mlp"]}}},
            r"per must name each component once",
        ),
        (
            {"parameters": LAMBDA, "sampler": "cma-es", "objective": ["a", "b"]},
            r"cma-es takes one objective, here are 2; use `sampler: tpe`",
        ),
        (
            {"parameters": {"t": {"values": [1, 2]}}, "sampler": "cma-es"},
            r"cma-es needs numbers from low to high; t has `values`",
        ),
        ({"parameters": LAMBDA, "sampler": "grid"}, r"a grid needs `values` or `step` of each"),
        ({"parameters": LAMBDA, "objective": []}, r"objective must be 'mean'"),
        ({"parameters": LAMBDA, "budget": {"hours": 1}}, r"budget.hours is not a known key"),
        (
            {"parameters": {"lambda": {"low": 0.0, "high": 1.0, "stop": 1}}},
            r"parameters.lambda.stop is not a known key. Did you mean 'step'",
        ),
        ({"parameters": {"t": {"low": float("nan"), "high": 1.0}}}, r"finite"),
    ],
)
def test_faults(given: object, told: str) -> None:
    with pytest.raises(SearchError, match=told):
        check_search(given)


def test_parts_of_parameters() -> None:
    settings = check_search(
        {
            "parameters": {
                "lambda": {"low": 0.5, "high": 1.5},
                "weight": {"low": 0.0, "high": 1.0, "per": "expert"},
                "t": {"low": 0.0, "high": 1.0, "per": "layers", "points": 3},
                "scale": {"values": [0.5, 1.0], "per": ["self_attn", "mlp"]},
            }
        }
    )
    names = [each.name for each in space_of(settings, ["idioms", "herbs"]).dimensions]
    assert names == [
        "lambda", "weight[herbs]", "weight[idioms]", "t[0]", "t[1]", "t[2]",
        "scale[self_attn]", "scale[mlp]", "scale[rest]",
    ]  # fmt: skip


def test_a_weight_an_expert_needs_experts() -> None:
    settings = check_search({"parameters": {"weight": {"low": 0.0, "high": 1.0, "per": "expert"}}})
    with pytest.raises(SearchError, match=r"is `per: expert`, and the recipe has no `experts`"):
        space_of(settings)


def test_a_space_is_bounded() -> None:
    wide = {"low": 0.0, "high": 1.0, "per": "layers", "points": 64}
    settings = check_search({"parameters": {f"p{n}": wide for n in range(9)}})
    with pytest.raises(SearchError, match=r"has 576 dimensions; at most 512"):
        space_of(settings)

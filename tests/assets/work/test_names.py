"""Names of assets: today's, and those of the release before they began with their recipe."""

import pytest

from assets.work import names

PAIRS = (
    ("ties/merged_checkpoint", "merged_checkpoint/ties"),
    ("ties/scores", "benchmark_scores/ties"),
    ("ties/champion", "champion/ties"),
    ("ties/emr_masks", "emr_masks/ties"),
    ("mix/step/warm", "merged_stage/mix/warm"),
    ("mix/step/warm/emr_masks", "emr_masks/mix/warm"),
)
UNCHANGED = ("model", "merge_plan", "leaderboard", "model_scores/quick", "model_scores/scores")


@pytest.mark.parametrize(("present", "earlier"), PAIRS)
def test_each_name_has_one_earlier_name(present: str, earlier: str) -> None:
    assert names.earlier_name(present) == earlier
    assert names.present_name(earlier) == names.present_name(present) == present


@pytest.mark.parametrize("name", UNCHANGED)
def test_other_names_are_as_they_were(name: str) -> None:
    assert names.earlier_name(name) is None
    assert names.present_name(name) == name


def test_the_functions_give_those_names() -> None:
    warm = names.step("mix", "warm")
    made = names.merged_checkpoint("ties")
    given = (made, names.scores("ties"), names.champion("ties"), names.emr_masks(made))
    assert (*given, warm, names.emr_masks(warm)) == tuple(present for present, _ in PAIRS)


def test_no_earlier_or_fixed_name_can_be_that_of_a_recipe() -> None:
    first_parts = {name.split("/")[0] for name in (*UNCHANGED, *(old for _, old in PAIRS))}
    assert first_parts <= names.reserved_names()


def test_kinds_are_last_but_for_steps_and_fixed_assets() -> None:
    kinds = {"ties/scores": "scores", "mix/step/warm": "step", "model_scores/q": "model_scores"}
    assert {name: names.kind_of(name) for name in kinds} == kinds

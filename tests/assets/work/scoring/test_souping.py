"""Soups: members of an average chosen from what the experts answered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from assets.work.merging.merging import MergeJob, merge_set
from assets.work.scoring import souping
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.scoring import Scoring
from assets.work.scoring.searching import found_job
from assets.work.scoring.souping import study_set
from assets.work.suite_files import load_suite
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from eval_ops.errors import EvalError
from eval_ops.scores import SuiteScores
from eval_ops.scores.matrices.matrix import ScoreMatrix, score_matrix
from eval_ops.scores.scores import Sample, summarize
from merge_ops.errors import RecipeError
from merge_ops.recipes import Recipe
from merge_ops.recipes.recipe_check import check_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.tiny_project import make_project

STREAM = StreamSettings(threads=1, device="cpu")
RIGHT: dict[str, dict[str, int]] = {
    "e1": {"a": 9, "b": 2}, "e2": {"a": 2, "b": 8}, "e3": {"a": 1, "b": 1},
}  # fmt: skip
"""How many of ten validation items of two benchmarks each expert has right."""


def job_of(soup: str) -> MergeJob:
    document = {"merge_method": "linear", "experts": "all", "suite": "colours", "soup": soup}
    recipe = check_recipe(document, "soup", "soup.yaml")
    points: dict[str, str | None] = {"searched": "searched|e1+e2+e3"}
    return MergeJob(Steps((recipe,)), "base", "e1+e2+e3", points, "soup/merged_checkpoint")


def answers(right: Mapping[str, float]) -> SuiteScores:
    samples = [
        Sample(name, split, f"{split}{n}", float(n < count))
        for name, count in right.items()
        for split in ("validation", "test")
        for n in range(10)
    ]
    rows = [r for n in right for r in summarize([s for s in samples if s.benchmark == n], "m", "1")]
    return SuiteScores("colours", "d", tuple(rows), tuple(samples))


@pytest.fixture
def scoring(tmp_path: Path) -> Scoring:
    project = make_project(tmp_path / "project", {}, experts=1)
    return Scoring(load_suite(project.catalog / "suites" / "colours.yaml"), "cpu", 1, "run")


@pytest.fixture
def tasted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Experts that answer as RIGHT says, averages that answer by what they are of; those asked."""
    seen: list[dict[str, float]] = []

    def matrix(*_: Any) -> ScoreMatrix:
        return score_matrix({name: answers(right) for name, right in RIGHT.items()})

    class Found:
        memoized = False

        def __init__(self, weights: Mapping[str, float]) -> None:
            self.digest = repr(sorted(weights.items()))
            # What an average has right: of each benchmark the best member's share, and half.
            self.scores = answers(
                {
                    b: min(10, round(sum(w * RIGHT[e][b] for e, w in weights.items()) * 1.5))
                    for b in "ab"
                }
            )

    def score(_: CandidateScorer, recipe: Recipe) -> Found:
        weights = {e.model: float(e.parameters["weight"]) for e in recipe.models}
        if len(weights) == 3:
            raise EvalError("answers with NaN")
        seen.append(weights)
        return Found(weights)

    monkeypatch.setattr(souping, "expert_matrix", matrix)
    monkeypatch.setattr(CandidateScorer, "score", score)
    return seen


def test_greedy_keeps_what_is_as_good_and_goes_on_after_a_fault(
    tmp_path: Path, scoring: Scoring, tasted: list[dict[str, float]]
) -> None:
    """Alone e1 has 5.5 of 10; with e2 (5.5, 5) · 1.5 it is better; with e3 too it is broken."""
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    found = study_set(store, job_of("greedy"), scoring, STREAM)
    assert tasted == [{"e1": 1.0}, {"e1": 0.5, "e2": 0.5}]
    study = found.study
    assert [trial.values is not None for trial in study.trials] == [True, True, False]
    assert study.chosen == 1
    assert study.winner is not None
    assert study.winner.point == {"weight[e1]": 0.5, "weight[e2]": 0.5, "weight[e3]": 0.0}
    job, digest = found_job(store, job_of("greedy"))
    assert digest == found.artifact.digest
    recipe = job.steps.result
    assert [(e.model, dict(e.parameters)) for e in recipe.models] == [
        ("e1", {"weight": 0.5}), ("e2", {"weight": 0.5}),
    ]  # fmt: skip
    assert [each.id for each in recipe.coefficients()] == ["searched"]


def test_soce_tries_the_grid_of_the_experts_of_each_category(
    tmp_path: Path, scoring: Scoring, tasted: list[dict[str, float]]
) -> None:
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    study = study_set(store, job_of("soce"), scoring, STREAM).study
    assert tasted[0] == {"e1": 0.5, "e2": 0.5}
    assert len(tasted) == 9
    assert study.winner is not None
    best = max(trial.values or () for trial in study.trials)
    assert study.winner.values == best


def test_a_real_soup_has_its_members_alone_as_inputs(tmp_path: Path) -> None:
    project = make_project(tmp_path, {}, experts=3)
    store = ArtifactStore.open((project.root / "store").as_uri())
    for name in ("base", "e1", "e2", "e3"):
        folder = project.root / "upstream" / name
        pull_model(
            store, UpstreamModel(name, str(folder), None if name == "base" else "base"), Path()
        )
    scoring = Scoring(load_suite(project.catalog / "suites" / "colours.yaml"), "cpu", 1, "run")
    found = study_set(store, job_of("greedy"), scoring, STREAM)
    winner = found.study.winner
    assert winner is not None
    job, _ = found_job(store, job_of("greedy"))
    (merged,) = merge_set(store, job, STREAM).checkpoints
    assert merged.artifact.digest == winner.digest
    members = {name[7:-1] for name, weight in winner.point.items() if weight}
    inputs = {store.ref("model", name).digest for name in members}  # pyright: ignore
    assert set(merged.artifact.manifest["inputs"]) == inputs
    again = study_set(store, job_of("greedy"), scoring, STREAM)
    assert again.found == len(again.study.trials)
    assert again.artifact.digest == found.artifact.digest


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"soup": "gredy"},
            "soup is 'gredy'; it must be one of greedy, soce. Did you mean 'greedy'",
        ),
        ({"merge_method": "ties"}, "soup is an average of models, and ties is none"),
        ({"suite": None}, "soup needs a `suite`"),
        ({"experts": None}, "soup needs `experts`"),
        ({"sweep": {"normalize": [True]}}, "soup stands beside `sweep`"),
        ({"search": {"parameters": {"weight": {"values": [1]}}}}, "soup stands beside `search`"),
        ({"models": [{"model": "e1"}]}, "soup stands beside `models`"),
        ({"parameters": {"weight": 1.0}}, "parameters.weight has no effect"),
    ],
)
def test_what_a_soup_may_not_have(change: dict[str, Any], told: str) -> None:
    document = {
        "merge_method": "linear",
        "experts": "all",
        "suite": "s",
        "soup": "greedy",
        **change,
    }
    document = {key: value for key, value in document.items() if value is not None}
    with pytest.raises(RecipeError, match=told):
        check_recipe(document, "soup", "soup.yaml")

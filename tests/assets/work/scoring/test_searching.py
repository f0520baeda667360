"""Searching a recipe's coefficients on candidates that are never written."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.work import names
from assets.work.merging.merging import MergeJob, merge_set
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.scoring import Scoring
from assets.work.scoring.searching import STUDY, at_point, found_job, search_set
from assets.work.suite_files import load_suite
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from eval_ops.errors import EvalError, PairingError, SearchError
from eval_ops.search import Study, check_search, space_of
from merge_ops.recipes.recipe_check import check_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.errors import MissingArtifactError
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.tiny_project import make_project

RECIPE: dict[str, Any] = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "experts": "all-pairs",
    "dtype": "float32",
    "suite": "colours",
    "search": {
        "trials": 5,
        "sampler": "tpe",
        "winner": "best",
        "parameters": {
            "lambda": {"low": 0.5, "high": 1.5},
            "weight": {"low": 0.0, "high": 1.0, "per": "expert"},
        },
    },
}
STREAM = StreamSettings(threads=1, device="cpu")


@dataclass(frozen=True)
class Place:
    """A store with the models of a tiny project, and what scores them."""

    store: ArtifactStore
    scoring: Scoring

    def job(self, **changes: Any) -> MergeJob:
        document = {**RECIPE, **changes}
        recipe = check_recipe(document, "wide", "wide.yaml")
        points: dict[str, str | None] = {"searched": "e1+e2|searched"}
        return MergeJob(Steps((recipe,)), "base", "e1+e2", points, "wide/merged_checkpoint")

    def search(self, job: MergeJob) -> Any:
        return search_set(self.store, job, self.scoring, STREAM)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    project = make_project(tmp_path_factory.mktemp("project"), {}, experts=2)
    store = ArtifactStore.open((project.root / "store").as_uri())
    for name in ("base", "e1", "e2"):
        folder = project.root / "upstream" / name
        base = None if name == "base" else "base"
        pull_model(store, UpstreamModel(name, str(folder), base), Path())
    suite = load_suite(project.catalog / "suites" / "colours.yaml")
    return Place(store, Scoring(suite, "cpu", 1, "run"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each candidate's scores were in the store, in the order in which they were asked."""
    told: list[bool] = []
    ask = CandidateScorer.score

    def counted(self: CandidateScorer, *given: Any, **named: Any) -> Any:
        found = ask(self, *given, **named)
        told.append(found.memoized)
        return found

    monkeypatch.setattr(CandidateScorer, "score", counted)
    return told


def test_a_search_that_was_killed_goes_on_with_the_same_trials(
    place: Place, scored: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, ask, seen = place.job(), CandidateScorer.score, list[int]()

    def killed(self: CandidateScorer, *given: Any, **named: Any) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(1)
        return ask(self, *given, **named)

    with monkeypatch.context() as during:
        during.setattr(CandidateScorer, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            place.search(job)
    assert names.resolve(place.store, "wide/search", "e1+e2") is None
    assert scored == [False] * 3
    whole = place.search(job)
    assert scored == [False] * 3 + [True] * 3 + [False] * 2
    assert (whole.found, len(whole.study.trials), whole.study.ended) == (3, 5, "trials")
    again = place.search(job)
    assert (again.study, again.found) == (whole.study, 5)
    assert again.artifact.digest == whole.artifact.digest


def test_the_winner_is_merged_at_its_point_and_nothing_else_is_written(place: Place) -> None:
    found = place.search(place.job())
    best = found.study.best
    job, study = found_job(place.store, place.job())
    assert study == found.artifact.digest
    merged = merge_set(place.store, job, STREAM)
    (checkpoint,) = merged.checkpoints
    assert checkpoint.coefficient == "searched"
    assert checkpoint.artifact.digest == best.digest
    assert checkpoint.artifact.virtual
    root = Path(place.store.uri.removeprefix("file://"))
    manifests = list((root / "artifacts" / "checkpoint").glob("*/manifest.json"))
    assert manifests
    assert all(json.loads(each.read_bytes())["virtual"] for each in manifests)


def test_it_is_chosen_on_validation_items(place: Place) -> None:
    found = place.search(place.job())
    values = {trial.number: sum(trial.values or ()) for trial in found.study.trials}
    assert values[found.study.best.number] == max(values.values())
    assert found.test.keys() == values.keys()


def test_several_objectives_and_an_unknown_one(place: Place) -> None:
    of_benchmark = {**RECIPE["search"], "objective": ["colour"], "trials": 2}
    found = place.search(place.job(search=of_benchmark))
    assert found.study.objectives == ("colour",)
    with pytest.raises(PairingError, match="benchmark 'colours' has no validation items"):
        place.search(place.job(search={**of_benchmark, "objective": "colours"}))


def test_a_budget_of_answers_ends_it(place: Place) -> None:
    items = sum(len(each.items) for each in place.scoring.suite.benchmarks)
    limited = {**RECIPE["search"], "budget": {"items": 2 * items}}
    found = place.search(place.job(search=limited))
    assert (len(found.study.trials), found.study.ended) == (2, "items")


def test_candidates_that_cannot_be_merged_are_trials_that_failed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CandidateScorer, recipe: Any, *given: Any, **named: Any) -> Any:
        raise EvalError("answers with NaN")

    monkeypatch.setattr(CandidateScorer, "score", refuse)
    with pytest.raises(EvalError, match=r"of wide \[e1\+e2\]: no candidate has scores; .*NaN"):
        place.search(place.job())


def test_the_centre_is_one_candidate_more_and_what_is_merged_if_it_wins(
    place: Place, scored: list[bool]
) -> None:
    centred = {**RECIPE["search"], "winner": "centre"}
    found = place.search(place.job(search=centred))
    centre, best = found.study.centre, found.study.best
    assert len(scored) == 6
    assert (centre.number, len(found.study.trials)) == (5, 5)
    assert found.test.keys() == set(range(6))
    for name, value in centre.point.items():
        tried = [trial.point[name] for trial in found.study.trials]
        assert min(tried) <= value <= max(tried)
    winner = centre if found.study.centre_wins else best
    job, _ = found_job(place.store, place.job(search=centred))
    (merged,) = merge_set(place.store, job, STREAM).checkpoints
    assert merged.artifact.digest == winner.digest
    assert Study.from_json(found.artifact.read_bytes("study.json")) == found.study


def test_a_search_begins_at_the_values_of_the_recipe(place: Place) -> None:
    models = [{"model": "e1", "parameters": {"weight": 0.25}}]
    job = place.job(parameters={"weight": 0.5, "lambda": 1.25}, models=models)
    found = place.search(job)
    assert found.study.trials[0].point == {"lambda": 1.25, "weight[e1]": 0.25, "weight[e2]": 0.5}
    without = place.search(place.job(search={**RECIPE["search"], "trials": 1}))
    assert without.study.trials[0].point == {"lambda": 1.0, "weight[e1]": 0.5, "weight[e2]": 0.5}


def test_nothing_searched_yet(place: Place, tmp_path: Path) -> None:
    empty = replace(place, store=ArtifactStore.open(tmp_path.as_uri()))
    with pytest.raises(MissingArtifactError, match=r"wide/search \[e1\+e2\] is not in artifact"):
        found_job(empty.store, place.job())


def test_a_study_of_other_parameters_is_refused(place: Place) -> None:
    place.search(place.job())
    other = {**RECIPE["search"], "parameters": {"lambda": {"low": 0.5, "high": 1.0}}}
    other["parameters"]["weight"] = {"low": 0.1, "high": 1.0}
    with pytest.raises(SearchError, match=r"the study is of lambda, weight\[e1\]"):
        found_job(place.store, place.job(search=other))


def test_points_become_parameters() -> None:
    document = yaml.safe_load(
        """
        merge_method: ties
        experts: all-pairs
        suite: colours
        search:
          parameters:
            lambda: {low: 0.5, high: 1.5, per: layers, points: 3}
            density: {low: 0.1, high: 1.0, per: [self_attn, mlp]}
            weight: {low: 0.0, high: 1.0, per: expert}
            normalize: {values: [true, false]}
        """
    )
    recipe = check_recipe(document, "wide", "wide.yaml")
    space = space_of(check_search(recipe.search), ["a", "b"])
    values = [0.5, 0.6, 0.7, 0.2, 0.3, 0.4, 0.8, 0.9, True]
    point = {d.name: value for d, value in zip(space.dimensions, values, strict=True)}
    at = at_point(recipe, space, point)
    assert at.parameters == {
        "lambda": [0.5, 0.6, 0.7],
        "density": [
            {"filter": "self_attn", "value": 0.2},
            {"filter": "mlp", "value": 0.3},
            {"value": 0.4},
        ],
        "normalize": True,
    }
    concrete = at.for_experts(["a", "b"], "base")
    assert [(e.model, dict(e.parameters)) for e in concrete.models] == [
        ("a", {"weight": 0.8}),
        ("b", {"weight": 0.9}),
    ]


def test_the_study_is_an_artifact(place: Place) -> None:
    found = place.search(place.job())
    ref = place.store.ref("wide/search", "e1+e2")
    assert ref is not None
    assert (ref.kind, ref.digest) == (STUDY, found.artifact.digest)
    assert Study.from_json(found.artifact.read_bytes("study.json")) == found.study

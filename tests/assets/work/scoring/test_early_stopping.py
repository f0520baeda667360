"""Early stopping: who is left, what is asked, and what the store and the gate make of it."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from assets.work import names
from assets.work.merging.merging import MergeJob, merge_set, point_at
from assets.work.ranking.collecting import collect_entries
from assets.work.ranking.ranking import Held, Promotion, promote, rank
from assets.work.scoring import candidates
from assets.work.scoring.candidates import CandidateScorer, MadePoint
from assets.work.scoring.early_stopping import score_set
from assets.work.scoring.partial_scores import PARTIAL, ItemPlaces
from assets.work.scoring.scoring import ScoredCheckpoint, Scoring, publish_scores
from assets.work.scoring.set_scores import SetPoints, SetScores
from assets.work.suite_files import load_suite
from eval_ops.errors import EvalError, PairingError
from eval_ops.scores import SuiteScores, scores_digest
from eval_ops.scores.gates import parse_gate
from eval_ops.scores.rounds import Saved
from eval_ops.scores.scores import Sample, summarize
from merge_ops.recipes import Steps
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream import StreamSettings
from resources.store import ArtifactStore
from tests.assets.work.made_up_store import POINTS, ScoredStore
from tests.merges.store_merges import pull_family
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import SHAPE

STREAM = StreamSettings(threads=1, device="cpu")
KEYS = {key: coefficient for key, (_, coefficient) in POINTS.items()}
EARLY = parse_gate({"early_stopping": True, "minimum_samples": 5})
WHOLE = parse_gate({"minimum_samples": 5})


class MadeUp(ScoredStore):
    """Candidates that are made, and answer when they are asked: so large a share is right."""

    models: tuple[str, ...] = ("base", "e1")

    def make(self, shares: Mapping[str, float], broken: str = "") -> None:
        self.suite = load_suite(self.root / "one.yaml")
        self.answers: dict[str, SuiteScores] = {}
        self.asked: dict[str, int] = {}
        self.broken = broken
        for key, share in shares.items():
            digest = self._publish("checkpoint", f"{key} {share}")
            self.store.point(names.merged_checkpoint("ties"), key, "checkpoint", digest)
            self.answers[key] = self._answers(share, key)
            self.asked[key] = 0

    def _answers(self, share: float, key: str) -> SuiteScores:
        draw, samples = random.Random(key), list[Sample]()
        for split in ("validation", "test"):
            for n in range(self.items):
                # Who is better has right what the worse one has, and more.
                right = (n * 7) % self.items < round(share * self.items)
                likely = (-1.0 - draw.random(), -3.0)
                samples.append(Sample("b", split, f"{split}{n}", float(right), 0, 0, likely))
        scores = summarize(samples, "acc", "1")
        return SuiteScores("one", self.suite.digest, scores, tuple(samples))

    def made(self, recipe: str, partition: str) -> MadePoint:
        ref = self.store.ref(names.merged_checkpoint(recipe), partition)
        assert ref is not None
        return MadePoint(self.store.get(ref.kind, ref.digest), partition, {})

    def ask(
        self, made: MadePoint, items: Mapping[str, Sequence[int]], progress: Any = None
    ) -> SuiteScores:
        if made.called == self.broken:
            raise EvalError("answers with NaN")
        every = self.answers[made.called].samples
        given = [every[place] for place in items["b"]]
        self.asked[made.called] += len(given)
        return SuiteScores("one", self.suite.digest, summarize(given, "acc", "1"), tuple(given))

    def score_point(self, recipe: str, partition: str, progress: Any = None) -> ScoredCheckpoint:
        checkpoint = self.made(recipe, partition).checkpoint
        known = self.store.find("scores", scores_digest(checkpoint.digest, self.suite.digest))
        if known is None:
            if partition == self.broken:
                raise EvalError("answers with NaN")
            self.asked[partition] += 2 * self.items
            whole = self.answers[partition]
            publish_scores(self.store, "checkpoint", checkpoint.digest, self.suite, whole)
        digest = scores_digest(checkpoint.digest, self.suite.digest)
        self.store.point(names.scores(recipe), partition, "scores", digest)
        artifact = self.store.get("scores", digest)
        return ScoredCheckpoint(artifact, self.answers[partition], known is not None, 0.0)

    def all_fit(self, count: int) -> bool:
        return False

    def score(self, *wanted: str, gate: Any = EARLY) -> SetScores:
        keys = {key: KEYS[key] for key in wanted or KEYS}
        scoring = Scoring(self.suite, "cpu", 1)
        return score_set(
            self.store, self, scoring, SetPoints("ties", keys, KEYS, self.models, ("ties",)), gate
        )

    def kind(self, key: str) -> str:
        ref = self.store.ref(names.scores("ties"), key)
        return ref.kind if ref is not None else ""


A, B, C = KEYS


@pytest.fixture
def store(tmp_path: Path) -> MadeUp:
    made = MadeUp(tmp_path, items=120)
    for name, share in (("base", 0.2), ("e1", 0.4), ("e2", 0.4)):
        made.model(name, share)
    return made


def test_worse_ones_are_left_and_the_best_is_asked_everything(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892})
    found = store.score()
    assert [*found.scored] == [A]
    assert [*found.left] == [B, C]
    assert store.asked[A] == 240
    assert 0 < store.asked[B] < 60
    assert store.asked[C] == 120  # near the best: all validation items, and no test item
    assert found.saved == Saved(sum(store.asked.values()), 720)
    assert store.kind(A) == "scores"
    assert store.kind(B) == store.kind(C) == PARTIAL
    asked = found.left[B].saved.asked
    assert found.left[B].because == (
        f"x=0 is better on validation items for sure, after {asked} of 120"
    )
    assert found.left[C].because == "x=0 is better on validation items"
    left = found.left[B].artifact.manifest
    assert (left["asked"], left["total"], left["role"]) == (asked, 240, "coefficient")
    assert found.left[B].scores.score("b", "validation").n == asked
    whole = found.scored[A].scores
    assert (whole.samples, whole.scores) == (store.answers[A].samples, store.answers[A].scores)


def test_partial_scores_are_on_no_board_and_no_fault(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892})
    store.score()
    found = collect_entries(store.store, store.contest, store.suite)
    assert [e.coefficient for e in found.entries if e.experts] == ["x=0"]
    assert (found.unscored, found.damaged) == (0, {})
    assert [each.role for each in found.left.values()] == ["coefficient"] * 2
    board = rank(store.store, store.contest)
    assert (board.left, dict(board.problems)) == (2, {})
    promotion = promote(store.store, store.contest, store.recipe, "cpu", 1)
    assert isinstance(promotion, Promotion)
    assert promotion.changed


def test_what_was_asked_is_not_asked_again(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892})
    store.score()
    before = dict(store.asked)
    again = store.score()
    assert store.asked == before
    assert [*again.left] == [B, C]
    whole = store.score(gate=WHOLE)
    assert [*whole.scored] == [A, B, C]
    assert store.asked == dict.fromkeys(KEYS, 240)
    assert whole.scored[B].scores.samples == store.answers[B].samples
    assert {store.kind(key) for key in KEYS} == {"scores"}


def test_a_later_coefficient_runs_against_what_is_known(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.95})
    assert [*store.score(A).scored] == [A]
    assert [*store.score(B).left] == [B]
    assert store.asked[B] < 60
    assert [*store.score(C).scored] == [C]
    assert (store.asked[A], store.asked[C]) == (240, 240)


SCREENED = parse_gate({"early_stopping": True, "reduced_set": 0.1, "minimum_samples": 5})


def test_a_reduced_set_leaves_those_that_are_far_behind(store: MadeUp) -> None:
    store.models = tuple(f"m{n}" for n in range(14))
    for n, name in enumerate(store.models):
        store.model(name, 0.2 + 0.05 * n)
    store.make({A: 0.9, B: 0.3, C: 0.892})
    found = store.score(gate=SCREENED)
    assert found.reduced.startswith(
        "a reduced set of 12 of 120 items, chosen from the answers of 14 models; differences"
    )
    assert [*found.scored] == [A]
    assert store.asked[B] == 12
    assert found.left[B].because.startswith(
        "x=0 is ahead by estimates from 12 of 120 validation items, "
    )
    assert store.asked[C] == 120
    assert found.saved == Saved(240 + 12 + 120, 720)
    whole = store.score(gate=WHOLE)
    assert [*whole.scored] == [A, B, C]
    assert [*store.asked.values()] == [240, 240, 240]


def test_where_too_few_are_known_there_is_no_reduced_set(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892})
    found = store.score(gate=SCREENED)
    assert "2 models that answer differently are known, and it takes 12" in found.reduced
    assert found.left[B].because.startswith("x=0 is better on validation items for sure")


def test_equals_are_all_asked_everything(store: MadeUp) -> None:
    store.make({A: 0.5, B: 0.5, C: 0.2})
    assert [*store.score().scored] == [A, B]


def test_one_that_cannot_be_asked_stops_nobody(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892}, broken=A)
    found = store.score()
    assert [*found.failed] == [A]
    assert str(found.failed[A]) == "answers with NaN"
    assert [*found.scored] == [C]
    assert [*found.left] == [B]
    assert store.kind(A) == ""


def test_the_best_of_a_set_is_left_where_the_champion_is_better_for_sure(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.5, C: 0.4})
    store.score(A)
    champion = store.made("ties", A).checkpoint.digest
    store.store.point("ties/champion", None, "checkpoint", champion)
    del store.answers[A]
    store.store.point(
        names.merged_checkpoint("ties"), A, "checkpoint", store._publish("checkpoint", "new")
    )
    store.answers[A] = store._answers(0.6, A)
    found = store.score()
    assert [*found.scored] == []
    assert found.left[A].artifact.manifest["role"] == "champion"
    assert "worse than the champion on test items for sure, after" in found.left[A].because
    assert found.left[A].scores.score("b", "validation").n == 120
    assert found.left[A].scores.score("b", "test").n < 120
    held = promote(store.store, store.contest, store.recipe, "cpu", 1)
    assert held is None  # nobody of the recipe has whole scores


def test_the_next_best_gets_no_turn_in_place_of_one_that_lost(store: MadeUp) -> None:
    """B's whole scores are older; A is better on validation items, and lost to the champion."""
    store.make({A: 0.9, B: 0.5, C: 0.4})
    store.score(A)
    champion = store.made("ties", A).checkpoint.digest
    store.store.point("ties/champion", None, "checkpoint", champion)
    store.score(B, gate=WHOLE)
    store.store.point(
        names.merged_checkpoint("ties"), A, "checkpoint", store._publish("checkpoint", "new")
    )
    store.answers[A] = store._answers(0.6, A)
    store.score(A)
    held = promote(store.store, store.contest, store.recipe, "cpu", 1)
    assert isinstance(held, Held)
    assert not held.fault
    assert held.reason.startswith(
        "ties e1+e2 x=0 is the best candidate on validation items, and worse than the champion"
    )


def test_what_was_left_against_something_gone_is_told(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892})
    store.score()
    gone = store._publish("checkpoint", "another")
    store.store.point(names.merged_checkpoint("ties"), A, "checkpoint", gone)
    board = rank(store.store, store.contest)
    assert sorted(board.problems) == [f"ties/scores [{B}]", f"ties/scores [{C}]"]
    assert "is no candidate of the recipe any more" in board.problems[f"ties/scores [{B}]"]
    store.answers[A] = store._answers(0.1, A)
    found = store.score()
    assert [*found.scored] == [C]
    assert rank(store.store, store.contest).problems == {}


def test_without_any_scores_the_first_says_what_there_is_to_ask(tmp_path: Path) -> None:
    alone = MadeUp(tmp_path, items=60)
    alone.make({A: 0.3, B: 0.9, C: 0.2})
    found = alone.score()
    assert [*found.scored] == [A, B]
    assert [*found.left] == [C]
    assert alone.asked[A] == alone.asked[B] == 120


def test_items_that_cannot_be_asked_alone() -> None:
    def scores(*samples: Sample) -> SuiteScores:
        return SuiteScores("s", "d", summarize(samples, "acc", "1"), samples)

    twice = [Sample("b", "validation", "x", 1.0), Sample("b", "validation", "x", 0.0)]
    with pytest.raises(PairingError, match="'x' of b has several answers, and cannot be asked"):
        ItemPlaces(scores(*twice))
    with pytest.raises(PairingError, match="'x' of b is worth 7, which is no share"):
        ItemPlaces(scores(Sample("b", "validation", "x", 7.0)))
    with pytest.raises(PairingError, match="has no validation items"):
        ItemPlaces(scores(Sample("b", "test", "x", 1.0)))


def test_a_candidate_that_answers_something_else_is_a_fault(store: MadeUp) -> None:
    store.make({A: 0.9, B: 0.3, C: 0.892})
    ask = store.ask

    def other(made: MadePoint, items: Mapping[str, Sequence[int]], progress: Any = None) -> Any:
        if made.called == B:
            items = {"b": [place + 1 for place in items["b"]]}
        return ask(made, items)

    store.ask = other  # type: ignore[method-assign]
    found = store.score()
    assert "items of suite 'one' and answered others" in str(found.failed[B])
    assert [*found.scored] == [A]


def test_real_candidates_are_left_and_later_asked_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers in parts are those of the whole, and each question is put once."""
    family = factory.write_family(tmp_path / "family", SHAPE)
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = [
        {"id": f"{split}{n}", "split": split, "prompt": f"letter {n} of {split}: ", "answer": n % 2}
        | {"choices": [letters[n % 26], letters[(7 * n + 3) % 26]]}
        for split in ("validation", "test")
        for n in range(40)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.yaml").write_text("name: s\nbenchmarks: [{name: b, items: items.jsonl}]\n")
    places, asked = Scoring(load_suite(tmp_path / "s.yaml"), "cpu", 1), dict[str, int]()
    store = ArtifactStore.open((tmp_path / "store").as_uri(), catalog="c")
    pull_family(store, family)
    text = """
        merge_method: task_arithmetic
        base_model: base
        experts: all
        parameters: {weight: 1.0}
        sweep: {lambda: [0.5, 8.0, 40.0]}
        suite: s
        keep: none
    """
    recipe = parse_recipe(text, "r", "r.yaml")
    keys = {each.id: each.id for each in recipe.coefficients()}
    job = MergeJob(Steps((recipe,)), "base", "expert-1+expert-2", keys, "r/merged_checkpoint")
    point_at(store, job, merge_set(store, job, STREAM), "run")
    ask = candidates.score_in_child

    def counted(
        folder: Any, called: str, scoring: Any, progress: Any, items: Any, *more: Any
    ) -> Any:
        asked[called] = asked.get(called, 0) + (80 if items is None else len(items["b"]))
        return ask(folder, called, scoring, progress, items, *more)

    monkeypatch.setattr(candidates, "score_in_child", counted)
    with CandidateScorer(store, job, places, STREAM) as scorer:
        found = score_set(store, scorer, places, SetPoints("r", keys, keys), EARLY)
    assert not found.failed
    assert found.scored
    assert found.left
    assert sum(asked.values()) < 240
    with CandidateScorer(store, job, places, STREAM) as scorer:
        whole = score_set(store, scorer, places, SetPoints("r", keys, keys), WHOLE)
    assert sorted(whole.scored) == sorted(keys)
    assert [*asked.values()] == [80, 80, 80]
    again = ArtifactStore.open((tmp_path / "another").as_uri(), catalog="c")
    pull_family(again, family)
    point_at(again, job, merge_set(again, job, STREAM), "run")
    with CandidateScorer(again, job, places, STREAM) as scorer:
        for key in keys:
            direct = scorer.score_point("r", key).scores
            assert direct.scores == whole.scored[key].scores.scores
            assert [(s.item, s.value, s.choice) for s in direct.samples] == [
                (s.item, s.value, s.choice) for s in whole.scored[key].scores.samples
            ]

"""What is worked out from all answers of a suite, beside the leaderboard."""

from pathlib import Path

from assets.work.ranking.store_matrix import evidence_of
from tests.assets.work.made_up_store import ScoredStore


def test_the_luck_of_the_best_of_all_candidates_is_told(tmp_path: Path) -> None:
    store = ScoredStore(tmp_path)
    store.everything({"x=0": 0.6, "x=1": 0.6, "x=2": 0.6})
    luck = evidence_of(store.store, store.contest, "one").luck
    assert luck is not None
    assert (luck.candidates, luck.apparent) == (3, 0.6)
    assert 0.01 < luck.bias < 0.1
    assert luck.to_text().startswith("The best of 3 on validation items has 60.0 there, of which ")


def test_one_candidate_is_the_best_of_none(tmp_path: Path) -> None:
    store = ScoredStore(tmp_path)
    store.everything({"x=0": 0.6})
    assert evidence_of(store.store, store.contest, "one").luck is None

"""Champions that people name: reasons on record, what a refresh may undo, and what is stale."""

from pathlib import Path

import pytest

from assets.work import names
from assets.work.ranking.crowning import promote_by_hand, roll_back
from assets.work.ranking.named_checkpoints import find_checkpoint, recipes_of
from assets.work.ranking.ranking import Promotion, promote, rank
from assets.work.records import champion_history as history
from assets.work.records.champion_history import before_this, champion_state, history_rows
from resources.errors import MissingArtifactError
from tests.assets.work.made_up_store import ScoredStore


@pytest.fixture
def made(tmp_path: Path) -> ScoredStore:
    made = ScoredStore(tmp_path)
    made.everything({"x=0": 0.7, "x=1": 0.9})
    return made


def refreshed(made: ScoredStore) -> Promotion:
    """What a refresh does: rank what is there, and put the best before the gate."""
    rank(made.store, made.contest)
    promotion = promote(made.store, made.contest, made.recipe, "cpu", 1)
    assert isinstance(promotion, Promotion)
    return promotion


def by_hand(made: ScoredStore, name: str, because: str = "it says please") -> str:
    candidate = find_checkpoint(made.store, made.contest, name)
    done = promote_by_hand(made.store, made.contest, made.recipe, candidate, because)
    return done.champion.digest


def champion(made: ScoredStore) -> str:
    ref = made.store.ref(names.champion("ties"))
    assert ref is not None
    return ref.digest


def test_a_promotion_by_hand_is_on_record_with_what_the_gate_says(made: ScoredStore) -> None:
    best = refreshed(made).champion
    assert best is not None
    candidate = find_checkpoint(made.store, made.contest, "ties[x=0|e1+e2]")
    done = promote_by_hand(made.store, made.contest, made.recipe, candidate, "it is polite")
    assert done.changed
    assert done.before == best.digest
    assert done.decision is not None
    assert not done.decision.promote
    ref = made.store.ref(names.champion("ties"))
    assert ref is not None
    assert ref.digest == done.champion.digest
    fields = ref.fields
    assert (fields["by_hand"], fields["because"], fields["gate"]) == (
        "promotion", "it is polite", "no",
    )  # fmt: skip
    assert fields["coefficient"] == "x=0"
    assert fields["passed_over"] == [best.digest]
    assert "significantly below that of the incumbent" in fields["reasons"][0]
    assert "@" in str(ref.current.by)
    rows = history_rows(ref)
    assert [row["how"] for row in rows] == ["promotion", "gate"]
    assert rows[0]["because"] == "it is polite"
    assert done.event["event"] == "promotion"
    assert done.event["because"] == "it is polite"
    assert done.event["by"] == ref.current.by


def test_a_refresh_undoes_no_promotion_by_what_was_known_then(made: ScoredStore) -> None:
    refreshed(made)
    chosen = by_hand(made, "ties[x=0|e1+e2]")
    again = refreshed(made)
    assert not again.changed
    assert champion(made) == chosen
    assert again.decision is None or not again.decision.promote

    # A candidate that is new since, and significantly better, does.
    newer = made.candidate("x=2|e1+e2", 0.98)
    assert refreshed(made).changed
    assert champion(made) == newer


def test_what_was_passed_over_comes_back_when_a_person_or_another_suite_says_so(
    made: ScoredStore,
) -> None:
    first = refreshed(made).champion
    assert first is not None
    by_hand(made, "ties[x=0|e1+e2]")
    promotion = refreshed(made)
    assert champion(made) != first.digest
    assert promotion.decision is None

    made.write_suite("other question")
    made.everything({"x=0": 0.7, "x=1": 0.9})
    assert refreshed(made).changed
    assert champion(made) == first.digest

    by_hand(made, "ties[x=0|e1+e2]")
    by_hand(made, first.digest[:12], "on second thoughts")
    assert not refreshed(made).changed
    assert champion(made) == first.digest


def test_all_candidates_passed_over_say_by_whom_and_why(made: ScoredStore) -> None:
    refreshed(made)
    made.store.place.delete(
        [
            made.store.upkeep.key_of(name, "x=0|e1+e2")
            for name in (names.scores("ties"), names.merged_checkpoint("ties"))
        ]
    )
    kept = made.candidate("x=2|e1+e2", 0.2)
    by_hand(made, kept[:10])
    made.store.place.delete(
        [made.store.upkeep.key_of(names.scores("ties"), "x=2|e1+e2")],
    )
    promotion = refreshed(made)
    assert not promotion.changed
    assert promotion.reasons[0].endswith(": it says please")
    assert "was passed over by" in promotion.reasons[0]


def test_rollbacks_go_back_step_by_step(made: ScoredStore) -> None:
    with pytest.raises(MissingArtifactError, match="recipe 'ties' has no champion"):
        roll_back(made.store, made.contest, made.recipe, "none yet")
    best = refreshed(made).champion
    assert best is not None
    with pytest.raises(MissingArtifactError, match="had no champion before this one"):
        roll_back(made.store, made.contest, made.recipe, "too early")
    second = by_hand(made, "ties[x=0|e1+e2]")
    third = made.candidate("x=2|e1+e2", 0.98)
    assert refreshed(made).changed
    assert champion(made) == third

    done = roll_back(made.store, made.contest, made.recipe, "it swears")
    assert done.champion.digest == champion(made) == second
    assert done.event["event"] == "rollback"
    assert done.event["before"] == third
    assert not refreshed(made).changed
    assert champion(made) == second

    roll_back(made.store, made.contest, made.recipe, "further back")
    assert champion(made) == best.digest
    ref = made.store.ref(names.champion("ties"))
    assert ref is not None
    assert before_this(ref) is None
    assert [row["how"] for row in history_rows(ref)] == [
        "rollback", "rollback", "gate", "promotion", "gate",
    ]  # fmt: skip


def test_what_has_no_scores_is_no_champion(made: ScoredStore) -> None:
    candidate = find_checkpoint(made.store, made.contest, "ties[x=0|e1+e2]")
    made.write_suite("not asked yet")
    with pytest.raises(MissingArtifactError, match="has no scores on suite 'one' as it is now"):
        promote_by_hand(made.store, made.contest, made.recipe, candidate, "anyway")


def test_names_digests_and_short_digests_stand_for_checkpoints(made: ScoredStore) -> None:
    refreshed(made)
    best = champion(made)

    def find(name: str) -> str:
        return find_checkpoint(made.store, made.contest, name).digest

    for name in (
        "ties/champion",
        "ties[x=1|e1+e2]",
        "ties/merged_checkpoint[x=1|e1+e2]",
        "ties e1+e2 x=1",
        best,
        best[:8],
    ):
        assert find(name) == best
    assert find("ties e1+e2 x=0") != best  # no row of the leaderboard, and there all the same
    assert find("e1") == made.digests["e1"]
    assert recipes_of(made.store, made.contest, best) == ["ties"]
    with pytest.raises(
        MissingArtifactError, match=r"'ties e1\+e2 x=7' stands for no checkpoint .*"
    ):
        find("ties e1+e2 x=7")
    with pytest.raises(MissingArtifactError, match="Did you mean 'ties e1"):
        find("ties e1+e3 x=1")
    with pytest.raises(MissingArtifactError, match="of recipe 'dare'"):
        find_checkpoint(made.store, made.contest, best, "dare")
    with pytest.raises(MissingArtifactError, match="stands for no checkpoint"):
        find(best[:5])


def test_an_upstream_update_makes_a_champion_stale(made: ScoredStore) -> None:
    refreshed(made)
    state = champion_state(made.store, "ties")
    assert state is not None
    assert state.stale is None
    made.store_model("e2", release=2)
    state = champion_state(made.store, "ties")
    assert state is not None
    assert state.stale == "it was made from an earlier e2; `ronghe refresh` merges it again"
    made.candidate("x=1|e1+e2", 0.9, release=2)
    state = champion_state(made.store, "ties")
    assert state is not None
    assert state.stale == "it was made from an earlier e2"


def test_a_changed_recipe_makes_a_champion_stale(made: ScoredStore) -> None:
    refreshed(made)
    made.candidate("x=1|e1+e2", 0.9, release=2)
    state = champion_state(made.store, "ties")
    assert state is not None
    assert state.stale == "the recipe makes another checkpoint of these models now"
    made.store.place.delete(
        [made.store.upkeep.key_of(names.merged_checkpoint("ties"), "x=1|e1+e2")]
    )
    state = champion_state(made.store, "ties")
    assert state is not None
    assert state.stale == "the recipe does not make it any more"


def test_a_lost_leaderboard_leaves_what_the_change_names_passed_over(made: ScoredStore) -> None:
    best = refreshed(made).champion
    assert best is not None
    by_hand(made, "ties[x=0|e1+e2]")
    ref = made.store.ref(names.champion("ties"))
    assert ref is not None
    board = ref.fields[history.LEADERBOARD_THEN]
    made.store.upkeep.set_aside([made.store.upkeep.manifest_key("leaderboard", board)])
    aside = history.set_aside(made.store, ref, ref.fields[history.SUITE_DIGEST])
    assert best.digest in aside
    assert history.set_aside(made.store, ref, "another suite") == {}

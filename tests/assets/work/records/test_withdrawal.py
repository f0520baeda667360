"""Withdrawn models: what rests on them, champions that go, and two people or a kill in between."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from assets.work import names
from assets.work.ranking.crowning import promote_by_hand, roll_back
from assets.work.ranking.named_checkpoints import find_checkpoint
from assets.work.ranking.ranking import Held, Promotion, promote, rank
from assets.work.records.champion_history import champion_state, history_rows
from assets.work.records.demotion import crowned, settle
from assets.work.records.withdrawal import marked, parents_in, rests_on, withdrawals
from assets.work.records.withdrawing import take_back, withdraw
from resources.errors import MissingArtifactError, SecretFoundError, WithdrawnError
from resources.store import ArtifactStore
from tests.assets.work.made_up_store import ScoredStore

WHY = "trained on the test items"


@pytest.fixture
def made(tmp_path: Path) -> ScoredStore:
    made = ScoredStore(tmp_path)
    made.everything({"x=0": 0.7})
    return made


def refreshed(made: ScoredStore) -> Promotion | Held | None:
    rank(made.store, made.contest)
    return promote(made.store, made.contest, made.recipe, "cpu", 1)


def champion(made: ScoredStore) -> str | None:
    ref = names.ref_of(made.store, names.champion("ties"))
    return ref.digest if ref is not None else None


def made_of(store: ArtifactStore, content: str, *inputs: str) -> str:
    """A checkpoint that says what it was made of."""
    digest = blake3(content.encode()).hexdigest()
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("config.json", json.dumps(content).encode())
        attempt.publish(digest, inputs=list(inputs))
    return digest


def candidate_of(made: ScoredStore, coefficient: str, share: float, *models: str) -> str:
    """A scored candidate of `ties` whose manifest names its inputs."""
    partition = f"{coefficient}|e1+e2"
    inputs = [made.digests[name] for name in models]
    made_of(made.store, f"{partition} 7", *inputs)
    return made.candidate(partition, share, release=7)


def test_what_descends_is_found_over_merges_of_merges_adapters_and_packed_experts(
    made: ScoredStore,
) -> None:
    store, bad = made.store, made.digests["e1"]
    step = made_of(store, "a step", bad, made.digests["base"])
    merged = made_of(store, "a merge of the step", step, made.digests["e2"])
    clean = made_of(store, "another", made.digests["base"], made.digests["e2"])
    virtual = blake3(b"virtual").hexdigest()
    making = {"recipe": {}, "models": {"#1": [made.digests["base"], bad]}, "coefficient": "default"}
    store.publish_virtual("checkpoint", virtual, making={**making, "bytes": 1}, inputs=[])
    with store.attempt("task_vector") as attempt:
        attempt.write_json("study.json", {})
        studied = attempt.publish(blake3(b"studied").hexdigest(), inputs={"e1": bad}).digest
    with store.attempt("packed_model") as attempt:
        attempt.write_bytes("x", b"x")
        packed = attempt.publish(
            blake3(b"packed").hexdigest(), base={"kind": "model", "digest": bad}
        )
    assert parents_in(packed.manifest) == {bad}
    assert rests_on(store, [merged]) == {} == marked(store)
    assert store.marks.withdraw(bad, WHY, "e1")
    every = [bad, step, merged, virtual, studied, packed.digest]
    assert set(marked(store)) == set(every)
    resting = rests_on(store, [*every, clean])
    assert set(resting) == {*every} - {studied}  # no kind that a merge has
    assert [each.because for each in resting[merged]] == [WHY]
    assert str(resting[merged][0]).startswith(f"e1 ({bad[:12]}) was withdrawn by ")


def test_a_champion_that_rests_on_it_goes_back_to_the_last_clean_one(made: ScoredStore) -> None:
    first = candidate_of(made, "x=0", 0.7, "base", "e2")
    assert isinstance(refreshed(made), Promotion)
    assert champion(made) == first
    second = candidate_of(made, "x=1", 0.95, "base", "e1", "e2")
    refreshed(made)
    assert champion(made) == second

    outcome = withdraw(made.store, "e1", WHY, suites={"ties": "one"})
    assert champion(made) == first
    assert [each.name for each in outcome.touched] == [
        "e1", "ties/champion", "ties[x=1|e1+e2]",
    ]  # fmt: skip
    (event,) = outcome.events
    assert (event["event"], event["suite"]) == ("demotion", "one")
    assert (event["champion"], event["before"]) == (first, second)
    ref = names.ref_of(made.store, names.champion("ties"))
    assert ref is not None
    row = history_rows(ref)[0]
    assert row["how"] == "withdrawal"
    assert WHY in row["because"]
    assert ref.fields["coefficient"] == "x=0"

    # A later refresh promotes no withdrawn candidate, however good it is.
    assert not isinstance(refreshed(made), Held)
    assert champion(made) == first
    again = withdraw(made.store, "e1", WHY)
    assert not again.changed
    assert again.demotions == ()

    candidate = find_checkpoint(made.store, made.contest, "ties[x=1|e1+e2]")
    with pytest.raises(WithdrawnError, match=rf"is no champion: .* was withdrawn .*{WHY}"):
        promote_by_hand(made.store, made.contest, made.recipe, candidate, "all the same")

    undone = take_back(made.store, "e1", "it was another model")
    assert {each.name for each in undone.touched} >= {"e1", "ties[x=1|e1+e2]"}
    assert withdrawals(made.store) == {}
    refreshed(made)
    assert champion(made) == second
    with pytest.raises(MissingArtifactError, match=r"'e1' is not withdrawn .* withdrawn are none"):
        take_back(made.store, "e1", "again")


def test_without_a_clean_one_there_is_no_champion(made: ScoredStore) -> None:
    bad = candidate_of(made, "x=0", 0.9, "base", "e1", "e2")
    refreshed(made)
    assert champion(made) == bad
    outcome = withdraw(made.store, "e1", WHY)
    assert [each.champion for each in outcome.demotions] == [None]
    assert str(outcome.demotions[0]).startswith(
        "the champion of ties is nobody: no earlier is clean"
    )
    assert champion(made) is None
    assert made.store.resolve(names.champion("ties")) is None
    assert champion_state(made.store, "ties") is None
    assert crowned(made.store) == ["ties"]
    held = refreshed(made)
    assert isinstance(held, Held)
    assert held.champion is None
    assert held.reason.startswith("every candidate rests on what was withdrawn: e1")
    with pytest.raises(MissingArtifactError, match="recipe 'ties' has no champion"):
        roll_back(made.store, made.contest, made.recipe, "back")

    clean = candidate_of(made, "x=1", 0.8, "base", "e2")
    refreshed(made)
    assert champion(made) == clean
    ref = names.history_of(made.store, names.champion("ties"))
    assert ref is not None
    assert [row["how"] for row in history_rows(ref)] == ["gate", "withdrawal", "gate"]


def test_with_warn_only_champions_stay_and_no_new_one_is_made(made: ScoredStore) -> None:
    first = candidate_of(made, "x=0", 0.7, "base", "e1", "e2")
    refreshed(made)
    outcome = withdraw(made.store, "e1", WHY, warn_only=True)
    assert outcome.standing == ("ties",)
    assert champion(made) == first
    candidate_of(made, "x=1", 0.98, "base", "e1", "e2")
    refreshed(made)
    assert champion(made) == first
    # The same without it demotes.
    assert withdraw(made.store, "e1", WHY).changed
    assert champion(made) is None


def test_a_kill_after_the_mark_leaves_the_rest_to_a_refresh(made: ScoredStore) -> None:
    first = candidate_of(made, "x=0", 0.7, "base", "e2")
    refreshed(made)
    candidate_of(made, "x=1", 0.95, "base", "e1", "e2")
    refreshed(made)
    made.store.marks.withdraw(made.digests["e1"], WHY, "e1")  # and killed here
    refreshed(made)
    assert champion(made) == first


def test_a_promotion_at_the_same_time_is_undone_by_whoever_is_last(
    made: ScoredStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = candidate_of(made, "x=0", 0.7, "base", "e2")
    refreshed(made)
    second = candidate_of(made, "x=1", 0.95, "base", "e1", "e2")
    rank(made.store, made.contest)
    point, seen = made.store.point, []

    def withdrawn_before(*arguments: object, **fields: object) -> object:
        if not seen:
            seen.append(ArtifactStore.open(made.store.uri, catalog="team"))
            withdraw(seen[0], "e1", WHY)
        return point(*arguments, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(made.store, "point", withdrawn_before)
    promotion = promote(made.store, made.contest, made.recipe, "cpu", 1)
    assert isinstance(promotion, Promotion)
    assert promotion.candidate.digest == second
    assert champion(made) == first
    assert promotion.champion is not None
    assert promotion.champion.digest == first


def test_a_champion_that_another_person_names_meanwhile_stays(
    made: ScoredStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate_of(made, "x=0", 0.7, "base", "e2")
    refreshed(made)
    candidate_of(made, "x=1", 0.95, "base", "e1", "e2")
    refreshed(made)
    third = candidate_of(made, "x=2", 0.8, "base", "e2")
    made.store.marks.withdraw(made.digests["e1"], WHY, "e1")
    other = ArtifactStore.open(made.store.uri, catalog="team")
    point, seen = made.store.point, []

    def named_before(*arguments: object, **fields: object) -> object:
        if not seen:
            seen.append(other.point(names.champion("ties"), None, "checkpoint", third))
        return point(*arguments, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(made.store, "point", named_before)
    settle(made.store, "ties")
    assert champion(made) == third


def test_a_name_stands_for_all_its_versions_and_a_digest_for_itself(made: ScoredStore) -> None:
    before = made.digests["e1"]
    made.store_model("e1", release=2)
    assert withdraw(made.store, before[:10], WHY).digests == (before,)
    take_back(made.store, before, "one is enough")
    outcome = withdraw(made.store, "e1", WHY)
    assert set(outcome.digests) == {before, made.digests["e1"]}
    assert set(withdrawals(made.store)) == set(outcome.digests)
    with pytest.raises(MissingArtifactError, match=r"is a scores in .* only models and"):
        withdraw(made.store, "model_scores/one[e1]", WHY)


def test_marks_keep_their_history_and_are_common_to_all_catalogs(
    made: ScoredStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, marks = made.digests["e1"], made.store.marks
    assert not marks.take_back(digest, "never was")
    assert marks.withdraw(digest, WHY)
    assert not marks.withdraw(digest, WHY)
    assert marks.withdraw(digest, "another reason")
    assert marks.take_back(digest, "an error")
    assert not marks.take_back(digest, "twice")
    said = [(each.withdrawn, each.because) for each in marks.history(digest)]
    assert said == [(True, WHY), (True, "another reason"), (False, "an error")]
    assert all("@" in each.by and each.at.startswith("2") for each in marks.history(digest))
    theirs = ArtifactStore.open(made.store.uri, catalog="theirs")
    assert theirs.marks.withdrawn() == {}
    marks.withdraw(digest, WHY)
    assert set(withdrawals(theirs)) == {digest}
    monkeypatch.setenv("HF_TOKEN", "a token of many letters")
    with pytest.raises(SecretFoundError, match="would hold a secret"):
        marks.withdraw(digest, "see a token of many letters")


def test_a_mark_that_cannot_be_read_counts(made: ScoredStore) -> None:
    digest = made.digests["e1"]
    made.store.place.put(f"withdrawn/{digest}.json", b"{")
    assert withdrawals(made.store)[digest].because.startswith("its mark cannot be read")


def test_people_who_mark_at_once_lose_nothing(made: ScoredStore) -> None:
    digest, reasons = made.digests["e1"], [f"reason {n}" for n in range(8)]
    stores = [ArtifactStore.open(made.store.uri, catalog="team") for _ in reasons]
    with ThreadPoolExecutor(len(reasons)) as pool:
        done = list(pool.map(lambda s, r: s.marks.withdraw(digest, r), stores, reasons))
    assert all(done)
    assert sorted(each.because for each in made.store.marks.history(digest)) == reasons

"""Refs by catalog: kept apart, and those of the time before, which belong to one catalog alone."""

import json
import logging

import pytest

from resources.errors import DamagedArtifactError, LaterReleaseError, StoreAddressError
from resources.store.artifact_store import ArtifactStore


@pytest.fixture
def digests(store: ArtifactStore) -> list[str]:
    found = []
    for number in range(3):
        with store.attempt("model") as attempt:
            attempt.write_json("config.json", number)
            found.append(attempt.publish(f"digest-{number}").digest)
    return found


def of(store: ArtifactStore, catalog: str | None) -> ArtifactStore:
    """The same store as a new process of a catalog opens it."""
    return ArtifactStore.open(store.uri, store.cache.root, catalog=catalog)


def today(asset: str) -> str:
    """A name of today for an earlier one."""
    return "sums/champion" if asset == "champion/sums" else asset


def test_catalogs_are_apart_whatever_they_are_called(
    store: ArtifactStore, digests: list[str]
) -> None:
    catalogs = ["a", "model", "ties", "药材", "A", "a b.c", "x" * 100, "文" * 60]
    for number, name in enumerate(catalogs):
        ours = of(store, name)
        ours.point("model", "e1", "model", digests[number % 3], number=number)
        ours.point("ties/champion", None, "model", digests[0], number=number)
    for number, name in enumerate(catalogs):
        ours = of(store, name)
        assert {key: ref.fields for key, ref in ours.refs("model").items()} == {
            "e1": {"number": number}
        }
        champion = ours.ref("ties/champion")
        assert champion is not None
        assert champion.fields == {"number": number}
        assert "@" in str(champion.current.by)
    assert of(store, None).upkeep.catalogs() == sorted(catalogs)
    with pytest.raises(StoreAddressError, match=r"holds refs of 8 catalogs \(.*\); say whose"):
        of(store, None).ref("model", "e1")
    assert of(store, "another").refs("model") == {}


def test_no_name_stands_for_the_only_catalog(store: ArtifactStore, digests: list[str]) -> None:
    of(store, "ours").point("model", "e1", "model", digests[0])
    assert of(store, None).refs("model").keys() == {"e1"}


def test_refs_without_a_catalog_belong_to_whoever_has_the_same_model(
    store: ArtifactStore, digests: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store.point("model", "e1", "model", digests[0])  # as the earlier release did
    store.point("sums/champion", None, "model", digests[1])
    with caplog.at_level(logging.WARNING):
        assert of(store, "ours").refs("model").keys() == {"e1"}
    assert "catalog 'ours' reads them. `ronghe adopt-refs`" in caplog.text
    ours, theirs = of(store, "ours"), of(store, "theirs")
    ours.point("model", "e1", "model", digests[0], revision="1")
    assert of(store, "ours").ref("sums/champion") is not None
    theirs.point("model", "e1", "model", digests[2])
    for each in (theirs, of(store, "theirs")):
        assert each.ref("sums/champion") is None
        assert each.refs("sums/champion") == {}
    assert ours.upkeep.earlier() == (2, "ours")


def test_a_new_catalog_does_not_take_them(
    store: ArtifactStore, digests: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its first model is another one of the same name, or one that nobody had."""
    store.point("model", "e1", "model", digests[0])
    store.point("sums/champion", None, "model", digests[1])
    for name, model in (("second", "e1"), ("third", "e9")):
        new = of(store, name)
        with caplog.at_level(logging.WARNING):
            new.point("model", model, "model", digests[2])
        assert "they are left alone" in caplog.text
        assert of(store, name).ref("sums/champion") is None
        assert of(store, name).refs("model").keys() == {model}
    assert store.upkeep.earlier() == (2, None)


@pytest.mark.parametrize("dry_run", [True, False])
def test_adopting_moves_all_and_is_idempotent(
    store: ArtifactStore, digests: list[str], dry_run: bool
) -> None:
    store.point("model", "e1", "model", digests[0])
    store.point("champion/sums", None, "model", digests[1], run="first")
    store.point("sums/champion", None, "model", digests[2], run="second")
    store.point("ours/scores", "a|b", "model", digests[2])  # a recipe called as the catalog
    ours = of(store, "ours")
    names = {("model", "e1"), ("sums/champion", None), ("ours/scores", "a|b")}
    adopted = ours.upkeep.adopt(None, today, dry_run)
    assert set(adopted.moved) == names
    if dry_run:
        assert store.upkeep.earlier() == (4, None)
        assert of(store, "ours").upkeep.catalogs() == []
        return
    assert of(store, "ours").upkeep.earlier() == (0, "ours")
    champion = of(store, "ours").ref("sums/champion")
    assert champion is not None
    assert [entry.run for entry in champion.history] == ["first", "second"]
    assert of(store, "ours").ref("ours/scores", "a|b") is not None
    assert ours.upkeep.adopt(None, today).moved == ()
    assert of(store, "theirs").refs("model") == {}


def test_adopting_keeps_what_is_newer_and_refuses_what_is_another_s(
    store: ArtifactStore, digests: list[str]
) -> None:
    store.point("model", "e1", "model", digests[0], run="old")
    new = of(store, "new")
    new.point("model", "e1", "model", digests[1], run="new")
    refused = new.upkeep.adopt(None, today)
    assert (refused.moved, refused.conflicts) == ((), (("model", "e1"),))
    assert store.upkeep.earlier() == (1, None)

    ours = of(store, "ours")
    ours.point("model", "e1", "model", digests[0], run="same")  # so they become its own
    ours.point("model", "e1", "model", digests[2], run="later")
    joined = ours.upkeep.adopt(None, today)
    assert joined.joined == joined.moved == (("model", "e1"),)
    ref = of(store, "ours").ref("model", "e1")
    assert ref is not None
    assert [entry.run for entry in ref.history] == ["old", "same", "later"]
    with pytest.raises(StoreAddressError, match="belong to catalog 'ours'; `ronghe adopt-refs --f"):
        new.upkeep.adopt(None, today)
    with pytest.raises(StoreAddressError, match="has no catalog 'nobody'; it has new, ours"):
        new.upkeep.adopt("nobody", today)
    with pytest.raises(StoreAddressError, match="is this catalog itself"):
        new.upkeep.adopt("new", today)
    renamed = of(store, "renamed")
    assert renamed.upkeep.adopt("ours", today).moved == (("model", "e1"),)
    moved = of(store, "renamed").ref("model", "e1")
    assert moved is not None
    assert moved.history == ref.history
    assert of(store, "ours").ref("model", "e1") is None


def test_a_broken_ref_is_one_fault(store: ArtifactStore, digests: list[str]) -> None:
    ours = of(store, "ours")
    for name in ("e1", "e2", "e3", "e4"):
        ours.point("model", name, "model", digests[0])
    stored = ours.place.read("refs/ours/model/e1.json")
    assert stored is not None
    good = json.loads(stored[0])
    bad = {
        "e2": stored[0][:-20],
        "e3": json.dumps({**good, "format": 7}).encode(),
        "e4": json.dumps(good).encode(),  # that of e1
        "e5": json.dumps({**good, "partition": "\ud800"}).encode(),
        "e6": json.dumps({**good, "history": [{**good["history"][0], "kind": "../x"}]}).encode(),
        "e9": json.dumps({**good, "partition": "e9", "catalog": "theirs"}).encode(),
        "e7": b"[" * 100_000,
        "e8": json.dumps({**good, "history": [{**good["history"][0], "by": ["x"]}]}).encode(),
    }
    for name, data in bad.items():
        ours.place.put(f"refs/ours/model/{name}.json", data)
    assert ours.refs("model").keys() == {"e1"}
    assert ours.damaged_refs("model").keys() == bad.keys()
    for name in bad:
        with pytest.raises(DamagedArtifactError, match=r"verify --repair|a later release writes"):
            ours.ref("model", name)
    with pytest.raises(LaterReleaseError, match="not of format 1 but of 7"):
        ours.point("model", "e3", "model", digests[1])
    found = {each.key.split("/")[-1][:2]: each for each in ours.upkeep.all_refs()}
    assert {name for name, each in found.items() if each.fault} == bad.keys()
    assert [name for name, each in found.items() if each.is_later] == ["e3"]


def test_damaged_notes_are_set_aside_and_written_anew(
    store: ArtifactStore, digests: list[str]
) -> None:
    ours = of(store, "文" * 60)  # its file's name is shortened
    ours.point("model", "e1", "model", digests[0])
    (note,) = [each.key for each in ours.place.children("catalogs")]
    for key in (note, "store.json"):
        ours.place.put(key, b"{")
    assert of(store, "文" * 60).refs("model").keys() == {"e1"}
    faults = ours.upkeep.note_faults()
    assert {key for key, _ in faults} == {note, "store.json"}
    moved = ours.upkeep.set_aside([key for key, _ in faults])
    assert len(moved) == 2
    assert all(ours.place.read(key) is not None for key in moved)
    assert ours.upkeep.catalogs() == ["文" * 60]
    of(store, "文" * 60).probe()
    assert ours.upkeep.identity is not None


def test_of_a_ref_that_is_huge_its_beginning_is_read_and_all_of_it_set_aside(
    store: ArtifactStore, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = of(store, "a")
    ours.point("model", "e1", "model", digests[0])
    ours.point("model", "e2", "model", digests[1])
    for module in ("local", "s3.objects"):
        monkeypatch.setattr(f"resources.places.{module}.LARGEST", 4096)
    monkeypatch.setattr("resources.store.upkeep.LARGEST", 4096)
    monkeypatch.setattr("resources.store.upkeep._PIECE", 3000)
    key = ours.upkeep.key_of("model", "e2")
    junk = b"{" + bytes(range(256)) * 40
    ours.place.put(key, junk)
    stored = ours.place.read(key)
    assert stored is not None
    assert stored[0] == junk[:4096]
    assert ours.refs("model").keys() == {"e1"}
    assert ours.damaged_refs("model").keys() == {"e2"}
    (moved,) = ours.upkeep.set_aside([key])
    assert ours.place.read(key) is None
    whole = memoryview(bytearray(len(junk) + 1))
    reader = ours.place.open_reader(moved)
    assert reader.read_into(0, whole) == len(junk)
    reader.close()
    assert whole[:-1] == junk

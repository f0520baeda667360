"""Names that point to artifacts, and their history."""

import json
import threading
from collections import Counter
from typing import Any

import pytest

from resources.errors import (
    AttemptError,
    DamagedArtifactError,
    MissingArtifactError,
    SecretFoundError,
)
from resources.places import Entry
from resources.store.artifact_store import ArtifactStore
from resources.store.names import ref_key

ODD = [
    None, "plain", "herbs+idioms|density=0.3_lambda=1.0", "a/b", "..", ".", "@", "", "a b", "%2B",
    "中药功效分类", "中" * 120, "中" * 119 + "文", "x.json", "A", "a", "?#&*'\"",
]  # fmt: skip


@pytest.fixture
def digests(store: ArtifactStore) -> list[str]:
    found = []
    for number in range(3):
        with store.attempt("checkpoint") as attempt:
            attempt.write_json("config.json", number)
            found.append(attempt.publish(f"digest-{number}").digest)
    return found


def test_any_partition_key_is_a_name(store: ArtifactStore, digests: list[str]) -> None:
    for number, partition in enumerate(ODD):
        store.point("linear/merged_checkpoint", partition, "checkpoint", digests[number % 3])
    refs = store.refs("linear/merged_checkpoint")
    assert set(refs) == set(ODD)
    for number, partition in enumerate(ODD):
        assert refs[partition].digest == digests[number % 3]
        assert store.ref("linear/merged_checkpoint", partition) == refs[partition]
        found = store.resolve("linear/merged_checkpoint", partition)
        assert found is not None
        assert found.read_json("config.json") == number % 3


def test_assets_are_apart(store: ArtifactStore, digests: list[str]) -> None:
    names = ["model", "model/a", "model/a/b", "model/a.json", "mode", "模型"]
    for number, asset in enumerate(names):
        store.point(asset, "a", "checkpoint", digests[number % 3], number=number)
    for number, asset in enumerate(names):
        assert {p: ref.fields for p, ref in store.refs(asset).items()} == {"a": {"number": number}}
    assert store.refs("nothing") == {}
    assert store.ref("nothing", "a") is None
    assert store.resolve("model") is None


def test_history_says_what_when_and_from_which_run(
    store: ArtifactStore, digests: list[str]
) -> None:
    for number, digest in enumerate(digests):
        store.point("ties/champion", "herbs", "checkpoint", digest, run=f"run-{number}", why=number)
    ref = store.ref("ties/champion", "herbs")
    assert ref is not None
    assert [(e.digest, e.run, e.fields) for e in ref.history] == [
        (digest, f"run-{number}", {"why": number}) for number, digest in enumerate(digests)
    ]
    assert [entry.at for entry in ref.history] == sorted(entry.at for entry in ref.history)
    assert ref.history[0].at.endswith("+00:00")
    assert (ref.kind, ref.digest, ref.fields) == ("checkpoint", digests[-1], {"why": 2})


def test_pointing_to_the_same_again_changes_nothing(
    store: ArtifactStore, digests: list[str]
) -> None:
    def point(digest: str, run: str, **fields: object) -> None:
        store.point("model", "herbs", "checkpoint", digest, run=run, **fields)

    point(digests[0], "run-1", why=[1])
    point(digests[0], "run-2", why=[1])
    point(digests[0], "run-3", why=[2])
    point(digests[1], "run-4")
    point(digests[0], "run-5", why=[2])
    ref = store.ref("model", "herbs")
    assert ref is not None
    assert [entry.run for entry in ref.history] == ["run-1", "run-3", "run-4", "run-5"]


def test_nobody_s_change_is_lost(store: ArtifactStore, digests: list[str]) -> None:
    def point(writer: int) -> None:
        for number in range(4):
            store.point("model", "herbs", "checkpoint", digests[0], writer=writer, number=number)

    threads = [threading.Thread(target=point, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ref = store.ref("model", "herbs")
    assert ref is not None
    said = [(entry.fields["writer"], entry.fields["number"]) for entry in ref.history]
    assert sorted(said) == [(writer, number) for writer in range(6) for number in range(4)]
    for writer in range(6):
        assert [number for who, number in said if who == writer] == [0, 1, 2, 3]


def test_all_refs_of_an_asset_are_one_listing_and_reads_at_once(
    store: ArtifactStore, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read waits here until as many others are under way as there shall be."""
    readers = store.place.readers
    count = 4 * readers
    for number in range(count):
        store.point("scores", f"set-{number}", "checkpoint", digests[0], number=number)
    place, together, asked = store.place, threading.Barrier(readers), Counter[str]()
    read, children = place.read, place.children

    def read_with_others(key: str) -> tuple[bytes, str] | None:
        together.wait(timeout=600)  # for ever, where reads come one after the other
        asked[key] += 1
        return read(key)

    def list_once(prefix: str) -> list[Entry]:
        asked["listing"] += 1
        return children(prefix)

    monkeypatch.setattr(place, "read", read_with_others)
    monkeypatch.setattr(place, "children", list_once)
    assert len(store.refs("scores")) == count
    assert len(asked) == count + 1
    assert set(asked.values()) == {1}


def test_what_cannot_be_pointed_is_refused(store: ArtifactStore, digests: list[str]) -> None:
    with pytest.raises(MissingArtifactError, match="has no checkpoint artifact nothing-there"):
        store.point("model", "herbs", "checkpoint", "nothing-there")
    with pytest.raises(SecretFoundError, match="the ref model herbs would hold a secret"):
        store.point("model", "herbs", "checkpoint", digests[0], url="https://me:pw@example.org")
    with pytest.raises(AttemptError, match="sets at itself"):
        store.point("model", "herbs", "checkpoint", digests[0], at="now")
    with pytest.raises(AttemptError, match="can hold only JSON values"):
        store.point("model", "herbs", "checkpoint", digests[0], why=object())
    assert store.refs("model") == {}
    store.place.put("refs/model/herbs.json", b'{"format": 1, "history": []}')
    with pytest.raises(DamagedArtifactError, match="the ref is not of format 1"):
        store.ref("model", "herbs")


def stored(store: ArtifactStore, partition: str | None = "a") -> tuple[str, dict[str, Any]]:
    key = ref_key(store.namespace.name, "linear/merged_checkpoint", partition)
    found = store.place.read(key)
    assert found is not None
    return key, json.loads(found[0])


def put(store: ArtifactStore, key: str, document: dict[str, Any]) -> None:
    store.place.delete([key])
    assert store.place.create(key, json.dumps(document).encode())


@pytest.mark.parametrize("name", ["digest", "kind", "at", "by", "run", "id", "check", "number"])
def test_a_ref_that_a_hand_changed_is_told_and_not_followed(
    store: ArtifactStore, digests: list[str], name: str
) -> None:
    for digest in digests[:2]:
        store.point("linear/merged_checkpoint", "a", "checkpoint", digest, run="r1", number=1.5)
    key, document = stored(store)
    other = {"digest": digests[2], "number": 1.25}
    for entry in document["history"]:
        was = entry[name]
        entry[name] = other.get(name, f"x{was}")
        put(store, key, document)
        with pytest.raises(DamagedArtifactError, match="not as it was written"):
            store.ref("linear/merged_checkpoint", "a")
        with pytest.raises(DamagedArtifactError):
            store.point("linear/merged_checkpoint", "a", "checkpoint", digests[2])
        entry[name] = was
    put(store, key, document)
    ref = store.ref("linear/merged_checkpoint", "a")
    assert ref is not None
    assert (ref.digest, ref.fields) == (digests[1], {"number": 1.5})


def test_a_ref_of_another_partition_is_not_followed(
    store: ArtifactStore, digests: list[str]
) -> None:
    for partition, digest in zip("ab", digests, strict=False):
        store.point("linear/merged_checkpoint", partition, "checkpoint", digest)
    (key, document), (_, other) = stored(store, "a"), stored(store, "b")
    put(store, key, {**document, "history": other["history"]})
    with pytest.raises(DamagedArtifactError, match="not as it was written"):
        store.ref("linear/merged_checkpoint", "a")


def test_entries_of_earlier_releases_have_no_check_and_stay(
    store: ArtifactStore, digests: list[str]
) -> None:
    store.point("linear/merged_checkpoint", "a", "checkpoint", digests[0])
    key, document = stored(store)
    (entry,) = document["history"]
    del entry["check"]
    put(store, key, document)
    store.point("linear/merged_checkpoint", "a", "checkpoint", digests[1])
    _, document = stored(store)
    assert ["check" in each for each in document["history"]] == [False, True]
    document["history"].append({**entry, "id": "e" * 32, "digest": digests[2]})
    put(store, key, document)
    ref = store.ref("linear/merged_checkpoint", "a")
    assert ref is not None
    assert [each.digest for each in ref.history] == digests

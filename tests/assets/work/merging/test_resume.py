"""A merge that was killed goes on where it stopped: finished tensors are copied, not computed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from assets.work.merging.merging import CHECKPOINT
from merge_ops.checkpoints.opening import open_checkpoint
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.merges.merge_processes import (
    MergeProcess,
    aws_environment,
    finish,
    publish_models,
    run,
    start,
)
from tests.models import checkpoint_factory as factory
from tests.resources.processes import line, worker

SHAPE = factory.Shape("qwen2", layers=2, hidden=128, intermediate=8192, tied=True)  # 26 MB
MIB = 1 << 20
LOST = {"file": MIB, "s3": 8 * MIB + MIB}  # since the last mark; since the last part and mark
BLOCK = 2 * MIB  # bytes of one write
Contents = Mapping[str, str]
SWEPT = """
merge_method: task_arithmetic
experts: all-pairs
base_model: base
parameters: {weight: 1.0}
sweep: {lambda: [0.25, 0.5]}
"""
GLOBAL = """
merge_method: ties
experts: all-pairs
base_model: base
parameters: {weight: 1.0, density: 0.4, trim: global}
"""
BOTH = ("lambda=0.25", "lambda=0.5")


def job(store: ArtifactStore, tmp_path: Path, name: str, **changes: object) -> MergeProcess:
    fields: dict[str, object] = {"recipe": SWEPT, "coefficients": BOTH, **changes}
    report = tmp_path / f"{name}.json"
    return MergeProcess(store.uri, report=report, environment=aws_environment(), **fields)  # type: ignore[arg-type]


def killed_at(store: ArtifactStore, tmp_path: Path, share: float, **changes: object) -> float:
    """Run a merge that is killed, and say at which share of its bytes that was."""
    dying = job(store, tmp_path, f"dies-{share}", die_at=share, **changes)
    assert finish([start(dying)]) == [-9]
    return json.loads(dying.report.with_suffix(".killed").read_text())


def merged(store: ArtifactStore, tmp_path: Path, name: str, **changes: object) -> dict:
    """Run a merge to its end."""
    whole = job(store, tmp_path, name, **changes)
    assert finish([start(whole)]) == [0]
    result = whole.result()
    assert result is not None
    return result


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> factory.Family:
    return factory.write_family(tmp_path_factory.mktemp("models"), SHAPE)


@pytest.fixture(scope="module")
def elsewhere(
    family: factory.Family, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Contents]:
    """What comes out, by recipe, in a store where nothing ever was killed."""
    root = tmp_path_factory.mktemp("elsewhere")
    store = ArtifactStore.open((root / "store").as_uri())
    publish_models(store.uri, family)
    found: dict[str, Contents] = {}
    for number, (recipe, points) in enumerate(((SWEPT, BOTH), (GLOBAL, ("default",)))):
        whole = job(store, root, str(number), recipe=recipe, coefficients=points)
        run(whole)
        result = whole.result()
        assert result is not None
        assert result["resumed"] == 0
        found[recipe] = result["contents"]  # type: ignore[assignment]
    return found


def finished_by(artifact: Artifact, byte: float) -> int:
    """How many tensors of the checkpoint end before a byte of its weights."""
    tensors = open_checkpoint("whole", artifact.source()).tensors.values()
    return sum(entry.offset + entry.nbytes <= byte for entry in tensors)


def test_a_merge_killed_at_ninety_percent_computes_what_was_unfinished(
    store: ArtifactStore, tmp_path: Path, family: factory.Family, elsewhere: dict[str, Contents]
) -> None:
    publish_models(store.uri, family)
    share = killed_at(store, tmp_path, 0.9)
    assert store.digests(CHECKPOINT) == []
    again = merged(store, tmp_path, "again")
    artifact = store.get(CHECKPOINT, again["digests"]["lambda=0.5"])
    size = artifact.files["model.safetensors"].size
    lost = LOST[store.uri.split(":")[0]] + BLOCK
    assert share < 0.97
    assert finished_by(artifact, share * size - lost) <= again["resumed"]
    assert again["resumed"] <= finished_by(artifact, share * size + BLOCK) < again["tensors"]
    assert again["contents"] == elsewhere[SWEPT]
    for digest in again["digests"].values():
        assert store.verify(store.get(CHECKPOINT, digest)) == []

    assert len(store.gc(grace_seconds=0).garbage) == 2, "what the killed merge left is gc's"
    assert store.place.pending("attempts") == []
    there = {entry.key.split("/")[1] for entry in store.place.walk("attempts")}
    published = {store.get(kind, digest).manifest["attempt"]
                 for kind in ("checkpoint", "model", "tensor_digests")
                 for digest in store.digests(kind)}  # fmt: skip
    assert there == published


def test_killed_twice(
    tmp_path: Path, family: factory.Family, elsewhere: dict[str, Contents]
) -> None:
    """The second dies earlier than the first; the third still has the first's tensors."""
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    publish_models(store.uri, family)
    killed_at(store, tmp_path, 0.9)
    killed_at(store, tmp_path, 0.4)
    again = merged(store, tmp_path, "again")
    assert again["resumed"] > again["tensors"] // 2
    assert again["contents"] == elsewhere[SWEPT]


def test_a_method_that_measures_the_whole_model_measures_what_it_copies(
    tmp_path: Path, family: factory.Family, elsewhere: dict[str, Contents]
) -> None:
    changes = {"recipe": GLOBAL, "coefficients": ("default",)}
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    publish_models(store.uri, family)
    killed_at(store, tmp_path, 0.9, **changes)
    again = merged(store, tmp_path, "again", **changes)
    assert 0 < again["resumed"] < again["tensors"]
    assert again["contents"] == elsewhere[GLOBAL]


def leave_unfinished(tmp_path: Path, family: factory.Family) -> tuple[ArtifactStore, list[Path]]:
    """A local store in which a merge was killed, and the weights it left."""
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    publish_models(store.uri, family)
    killed_at(store, tmp_path, 0.9)
    left = [path for path in (tmp_path / "store/attempts").glob("*/model.safetensors")
            if path.parent.with_suffix(".json").exists()]  # fmt: skip
    assert len(left) == 2
    return store, left


def test_spoilt_remains_are_used_up_to_the_fault(
    tmp_path: Path, family: factory.Family, elsewhere: dict[str, Contents]
) -> None:
    store, left = leave_unfinished(tmp_path, family)
    for path in left:
        with path.open("r+b") as file:
            file.seek(15 * MIB)
            byte = file.read(1)[0]
            file.seek(15 * MIB)
            file.write(bytes([byte ^ 0x40]))
    again = merged(store, tmp_path, "again")
    artifact = store.get(CHECKPOINT, again["digests"]["lambda=0.5"])
    assert 0 < again["resumed"] <= finished_by(artifact, 15 * MIB)
    assert again["contents"] == elsewhere[SWEPT]


def test_remains_that_change_after_they_were_checked_are_not_published(
    tmp_path: Path,
    family: factory.Family,
    elsewhere: dict[str, Contents],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bit turns between the check and the copy: all is merged anew."""
    import assets.work.merging.resume

    store, left = leave_unfinished(tmp_path, family)
    resuming = assets.work.merging.resume.resuming

    def spoil(*arguments):
        with left[0].open("r+b") as file:
            file.seek(5 * MIB)
            file.write(b"\xff")
        return resuming(*arguments)

    monkeypatch.setattr(assets.work.merging.resume, "resuming", spoil)
    again = job(store, tmp_path, "again")
    run(again)
    result = again.result()
    assert result is not None
    assert result["resumed"] == 0
    assert result["contents"] == elsewhere[SWEPT]


def test_remains_that_vanish_while_they_are_read_are_done_without(
    tmp_path: Path,
    family: factory.Family,
    elsewhere: dict[str, Contents],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import assets.work.merging.resume

    store, left = leave_unfinished(tmp_path, family)
    resuming = assets.work.merging.resume.resuming

    def shorten(*arguments):
        os.truncate(left[1], 5 * MIB)
        return resuming(*arguments)

    monkeypatch.setattr(assets.work.merging.resume, "resuming", shorten)
    again = job(store, tmp_path, "again")
    run(again)
    result = again.result()
    assert result is not None
    assert result["resumed"] == 0
    assert result["contents"] == elsewhere[SWEPT]


def test_a_living_writer_is_not_resumed(store: ArtifactStore) -> None:
    """Neither this process nor another one; killed, it is. (From elsewhere: test_place_faults.)"""
    with store.attempt(CHECKPOINT, "our-digest") as attempt:
        with attempt.open("model.safetensors", 2 * MIB) as writer:
            writer.write(bytes(2 * MIB))
            assert store.unfinished(CHECKPOINT, "our-digest") == []
        assert attempt.publish("our-digest").nbytes == 2 * MIB
    with worker("hang", store.uri, "their-digest") as process:
        assert line(process) == "ready"
        assert store.unfinished(CHECKPOINT, "their-digest") == []
        process.kill()
        process.wait()
        assert store.unfinished(CHECKPOINT, "another-digest") == []
        (left,) = store.unfinished(CHECKPOINT, "their-digest")
    assert list(left.check({"config.json": [2]})["config.json"]) == [2]
    left.close()
    left.release()
    assert [garbage.attempt for garbage in store.gc(grace_seconds=0).garbage] == [left.attempt]
    assert store.unfinished(CHECKPOINT, "their-digest") == []

"""Damage in a store, and the way out that each message names, gone to its end."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.work.upstream.packed_models import stored_model
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import RefreshReport, refresh
from orchestration.refreshing.store_state import REMEMBERED
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.brought_up import ProjectsBroughtUp
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project

MERGED, POINT = "average/merged_checkpoint", "default|e1+e2"
PLAIN = {name: value for name, value in AVERAGE.items() if name != "suite"}
PLAIN |= {"base_model": "base", "merge_method": "task_arithmetic", "experts": "all"}
Ronghe = Callable[..., tuple[int, str]]


def make(root: Path) -> TinyProject:
    made = make_project(root, {"average": PLAIN}, experts=2)
    path = made.catalog / "models.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("  name: e1", "  store: packed\n  name: e1"),
        encoding="utf-8",
    )
    return made


def commanded(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The project, which commands of this process find."""
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    return project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    return commanded(make(tmp_path), monkeypatch)


@pytest.fixture
def refreshed(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> TinyProject:
    """The project, up to date, on an instance that outlives its store."""
    return commanded(brought_up.get(instance, "repaired", make)[0], monkeypatch)


def rerun(report: RefreshReport) -> dict[str, set[str | None]]:
    assert report.failures == []
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def contents(store: ArtifactStore) -> dict[str, str]:
    """The content digests that the catalog's names stand for."""
    found = {name: stored_model(store, name) for name in ("base", "e1", "e2")}
    digests = {name: model.content_digest for name, model in found.items() if model is not None}
    merged = store.resolve(MERGED, POINT)
    return digests | ({MERGED: merged.content_digest} if merged is not None else {})


def ref_file(project: TinyProject, asset: str, partition: str) -> Path:
    (found,) = project.root.glob(f"store/refs/*/{asset}/{partition}.json")
    return found


def file_of(project: TinyProject, store: ArtifactStore, kind: str, digest: str) -> Path:
    """The largest file of a published artifact."""
    artifact = store.get(kind, digest)
    largest = max(artifact.files.values(), key=lambda file: file.size)
    return project.root / "store" / artifact.key(largest.path)


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)


def test_a_lost_or_swapped_store_is_filled_again(
    project: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    whole = rerun(refresh(instance, project.settings()))
    store = project.opened_store()
    before = contents(store)
    assert before.keys() == {"base", "e1", "e2", MERGED}
    assert rerun(refresh(instance, project.settings())) == {}
    assert json.loads(
        instance.daemon_cursor_storage.get_cursor_values({REMEMBERED})[REMEMBERED]
    )["id"] == store.upkeep.identity  # fmt: skip

    shutil.rmtree(project.root / "store")
    report = refresh(instance, project.settings())
    subset = {asset for asset in whole if asset.endswith("merge_plan_subset")}
    assert {asset: whole[asset] for asset in whole.keys() - subset} == rerun(report)
    assert any("is empty than this instance filled" in note for note in report.notes)
    assert contents(project.opened_store()) == before
    assert rerun(refresh(instance, project.settings())) == {}

    shutil.rmtree(project.root / "store")  # another one, of a catalog with the same name
    project.retrain("e1", 99)
    with dg.DagsterInstance.ephemeral() as other:
        refresh(other, project.settings())
    project.retrain("e1", 1)
    report = refresh(instance, project.settings())
    assert rerun(report)["model"] == {"e1"}
    assert any("is another one than this instance filled" in note for note in report.notes)
    assert contents(project.opened_store())["e1"] == before["e1"]


def test_an_older_copy_of_a_store_is_brought_up_to_date(
    refreshed: TinyProject, instance: dg.DagsterInstance
) -> None:
    project, copy = refreshed, refreshed.root / "copy"
    settings = project.settings()
    shutil.copytree(project.root / "store", copy)

    def put_back() -> None:
        shutil.rmtree(project.root / "store")
        shutil.copytree(copy, project.root / "store")

    project.retrain("e1", 99)
    changed = rerun(refresh(instance, settings))
    assert changed.keys() == {"model", "task_vector", "average/merge_plan", MERGED, "catalog_site"}
    new = contents(project.opened_store())
    put_back()
    assert contents(project.opened_store()) != new
    report = refresh(instance, settings)
    assert rerun(report) == changed
    assert any("an older copy of the store was put back" in note for note in report.notes)
    assert contents(project.opened_store()) == new
    assert rerun(refresh(instance, settings)) == {}

    shutil.rmtree(copy)
    shutil.copytree(project.root / "store", copy)
    project.write_recipe("average", {**PLAIN, "parameters": {"weight": 0.5}})
    changed = {MERGED: {POINT}, "catalog_site": {None}}
    assert rerun(refresh(instance, settings)) == changed
    new = contents(project.opened_store())
    put_back()  # no model tells it, only what was merged
    assert rerun(refresh(instance, settings)) == changed
    assert contents(project.opened_store()) == new


def test_deleted_parts_are_made_again(
    refreshed: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    project = refreshed
    store, root = project.opened_store(), project.root / "store"
    before = contents(store)
    merged, expert = store.ref(MERGED, POINT), store.ref("model", "e2")
    assert merged is not None
    assert expert is not None
    (root / f"artifacts/checkpoint/{merged.digest}/manifest.json").unlink()
    (root / f"artifacts/{expert.kind}/{expert.digest}/manifest.json").unlink()
    ref_file(project, "task_vector", "e1").unlink()
    status, told = ronghe("verify")
    assert status == 1
    assert f"points to checkpoint {merged.digest}, which is not there" in told
    report = refresh(instance, project.settings())
    assert rerun(report) == {"model": {"e2"}, "task_vector": {"e1"}, MERGED: {POINT}}
    assert contents(project.opened_store()) == before
    assert ronghe("verify")[0] == 0
    again = project.opened_store().ref(MERGED, POINT)
    assert again is not None
    assert again.history == merged.history


def test_cut_off_documents_are_faults_with_a_way_out(
    refreshed: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    project = refreshed
    store = project.opened_store()
    before = contents(store)
    expert = store.ref("model", "e2")
    assert expert is not None
    manifest = project.root / f"store/artifacts/{expert.kind}/{expert.digest}/manifest.json"
    for path in (manifest, ref_file(project, "model", "base")):
        path.write_bytes(path.read_bytes()[:-40])
    assert project.opened_store().refs("model").keys() == {"e1", "e2"}
    assert project.opened_store().damaged_refs("model").keys() == {"base"}
    report = refresh(instance, project.settings())
    (failure,) = report.failures
    assert "model/base.json: the ref is no JSON. `ronghe verify --repair` sets" in failure
    status, told = ronghe("restore", "e2", "--out", str(project.root / "out"))
    assert status == 2
    assert "`ronghe verify --repair`" in told
    status, told = ronghe("verify")
    assert status == 1
    assert "the manifest is no JSON" in told
    assert "the ref is no JSON" in told
    status, told = ronghe("verify", "--repair")
    assert status == 0, told
    assert "2 parts are set aside" in told
    report = refresh(instance, project.settings())
    assert rerun(report) == {"model": {"base", "e2"}}
    assert contents(project.opened_store()) == before
    assert ronghe("verify")[0] == 0
    assert ronghe("restore", "e2", "--out", str(project.root / "out"))[0] == 0


def test_a_rotten_packed_expert_and_what_was_made_from_it_are_made_again(
    refreshed: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    project = refreshed
    store = project.opened_store()
    before = contents(store)
    expert, merged = store.ref("model", "e1"), store.ref(MERGED, POINT)
    assert expert is not None
    assert merged is not None
    assert expert.kind == "packed_model"
    spoil(file_of(project, store, expert.kind, expert.digest))
    status, told = ronghe("verify", "--repair")
    assert status == 0, told
    assert merged.digest in told  # set aside with it
    report = refresh(instance, project.settings())
    assert rerun(report) == {
        "model": {"e1"}, "task_vector": {"e1"}, "average/merge_plan": {"e1+e2"}, MERGED: {POINT}
    }  # fmt: skip
    assert contents(project.opened_store()) == before
    status, told = ronghe("verify")
    assert status == 0, told
    out = project.root / "out"
    assert ronghe("restore", "e1", "--out", str(out))[0] == 0
    upstream = project.root / "upstream" / "e1" / "model.safetensors"
    assert (out / "model.safetensors").read_bytes() == upstream.read_bytes()
    status, told = ronghe("gc", "--grace", "0s")  # what was set aside stays
    aside = list((project.root / "store" / "aside").rglob("manifest.json"))
    for manifest in aside:
        attempt = json.loads(manifest.read_bytes())["attempt"]
        assert (project.root / "store" / "attempts" / attempt).is_dir()


def test_a_packed_expert_whose_base_is_gone_is_no_sound_one(
    refreshed: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    project = refreshed
    store = project.opened_store()
    before, base = contents(store), store.ref("model", "base")
    assert base is not None
    (project.root / f"store/artifacts/model/{base.digest}/manifest.json").unlink()
    status, told = ronghe("verify", "--kind", "packed_model")
    assert status == 1
    assert f"its base, model artifact {base.digest}, is not in the store" in told
    assert ronghe("verify", "--repair")[0] == 0
    assert rerun(refresh(instance, project.settings()))["model"] == {"base", "e1", "e2"}
    assert contents(project.opened_store()) == before
    assert ronghe("verify")[0] == 0


def test_a_wrong_merge_of_an_earlier_release_is_made_again_when_it_is_said(
    refreshed: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    """The base was repaired after it: nothing is rotten any more, and yet the merge is wrong."""
    project = refreshed
    store = project.opened_store()
    base, merged = store.ref("model", "base"), store.ref(MERGED, POINT)
    assert base is not None
    assert merged is not None
    right = contents(store)[MERGED]
    key = project.root / f"store/artifacts/checkpoint/{merged.digest}/manifest.json"
    key.unlink()
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("model.safetensors", b"merged from a rotten base")
        attempt.publish(merged.digest, inputs={"base": base.digest})
    assert ronghe("verify")[0] == 0
    status, told = ronghe("verify", "--made-from", base.digest)
    assert status == 2
    assert "--made-from needs --repair" in told
    status, told = ronghe("verify", "--repair", "--made-from", base.digest)
    assert status == 0, told
    assert merged.digest in told
    assert POINT in rerun(refresh(instance, project.settings()))[MERGED]
    assert contents(project.opened_store())[MERGED] == right


def test_what_a_later_release_wrote_stays(
    refreshed: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe
) -> None:
    project = refreshed
    path = ref_file(project, "model", "e2")
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "format": 2}), encoding="utf-8")
    for command in (["verify"], ["verify", "--repair"], ["doctor"]):
        status, told = ronghe(*command)
        assert status == 1
        assert "is not of format 1 but of 2, which a later release writes" in told
    assert json.loads(path.read_bytes())["format"] == 2
    report = refresh(instance, project.settings())
    assert len(report.failures) == 1
    assert "a later release writes" in report.failures[0]
    assert project.opened_store().refs("model").keys() == {"base", "e1"}


def test_what_may_not_be_read_is_told_and_not_set_aside(
    refreshed: TinyProject, ronghe: Ronghe, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = next(refreshed.root.glob("store/attempts/*/model.safetensors"))
    opened = os.open

    def refused(path: Any, *given: Any, **named: Any) -> int:
        if os.fspath(path) == str(weights):  # root may read everything, so it is told otherwise
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        status, told = ronghe("verify", "--repair")
    assert status == 1
    assert "Permission denied" in told
    assert "Nothing was to be set aside" in told
    assert weights.exists()
    assert ronghe("verify")[0] == 0


def test_doctor_compares_the_instance_with_the_store(project: TinyProject, ronghe: Ronghe) -> None:
    with open_instance(project.settings()) as instance:
        refresh(instance, project.settings())
    status, told = ronghe("doctor")
    assert (status, "Dagster and the store agree on 8 partitions" in told) == (0, True), told
    store = project.opened_store()
    named, other = store.ref("model", "e2"), store.ref("model", "base")
    assert named is not None
    assert other is not None
    store.point("model", "e2", other.kind, other.digest)  # as a run does that is killed after it
    status, told = ronghe("doctor")
    assert status == 1
    assert "names other artifacts than Dagster's instance knows (2 partitions): an older" in told
    assert "has lost something" not in told
    store.point("model", "e2", named.kind, named.digest)
    ref_file(project, "model", "e2").unlink()
    status, told = ronghe("doctor")
    assert status == 1
    assert "has lost something: 1 partitions that Dagster's instance believes made" in told
    shutil.rmtree(project.root / "dagster")
    status, told = ronghe("doctor")
    assert status == 0
    assert "What only the store has is found there, not made again" in told

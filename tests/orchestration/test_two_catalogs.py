"""Two catalogs whose models share names, on one store, with no setting made."""

from pathlib import Path

import dagster as dg
import pytest

from assets.work import names
from assets.work.upstream.packed_models import stored_model
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands import cli
from orchestration.refreshing.refresh import refresh
from resources.errors import StoreAddressError
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project

MERGED, POINT = "average/merged_checkpoint", "default|e1+e2"


def store_of(project: TinyProject) -> ArtifactStore:
    settings = named_settings(project.settings())
    return ArtifactStore.open(settings.store, catalog=settings.catalog_name)


def run(project: TinyProject) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        report = refresh(instance, project.settings())
    assert report.failures == []


def everything(store: ArtifactStore) -> dict[str, object]:
    """All that the catalog's names stand for, and how they came to."""
    assets = (
        "model", "task_vector", "merge_plan", MERGED, "average/scores", "model_scores/colours",
        "leaderboard", "average/champion",
    )  # fmt: skip
    return {asset: names.refs_of(store, asset) for asset in assets}


def test_two_catalogs_never_mix(
    tmp_path: Path,
    store_root: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = {**AVERAGE, "gate": {"minimum_samples": 1}}
    ours = make_project(tmp_path / "a", {"average": recipe}, experts=2, store=store_root)
    theirs = make_project(tmp_path / "b", {"average": recipe}, experts=2, store=store_root)
    for expert, seed in (("e1", 71), ("e2", 72)):
        theirs.retrain(expert, seed)
    run(ours)
    first = store_of(ours)
    before = everything(first)
    run(theirs)
    second = store_of(theirs)
    assert everything(first) == before
    assert first.namespace.name != second.namespace.name
    assert first.upkeep.catalogs() == sorted(
        [str(first.namespace.name), str(second.namespace.name)]
    )
    for asset, partition in (("model", "e1"), (MERGED, POINT), ("leaderboard", None)):
        ref, other = first.ref(asset, partition), second.ref(asset, partition)
        assert ref is not None
        assert other is not None
        assert ref.digest != other.digest
        assert len(ref.history) == len(other.history) == 1
        assert "@" in str(ref.current.by)
    base, same = first.ref("model", "base"), second.ref("model", "base")
    assert base is not None
    assert same is not None
    assert base.digest == same.digest  # contents are common
    merged = second.ref(MERGED, POINT)
    assert merged is not None
    assert merged.fields["models"] == {
        name: model.digest
        for name in ("e1", "e2")
        if (model := stored_model(second, name)) is not None
    }
    for project, number in ((ours, 1), (theirs, 2)):
        for name, value in project.environment.items():
            monkeypatch.setenv(name, value)
        out = tmp_path / f"restored-{number}"
        monkeypatch.setattr("sys.argv", ["ronghe", "restore", "e1", "--out", str(out)])
        with pytest.raises(SystemExit):
            cli.main()
        weights = project.root / "upstream" / "e1" / "model.safetensors"
        assert (out / "model.safetensors").read_bytes() == weights.read_bytes()
        out = tmp_path / f"merged-{number}"
        monkeypatch.setattr(
            "sys.argv", ["ronghe", "restore", f"{MERGED}[{POINT}]", "--out", str(out)]
        )
        with pytest.raises(SystemExit):
            cli.main()
        card = (out / "README.md").read_text(encoding="utf-8")
        store = first if project is ours else second
        assert f"| e1 | not stated | `{store.refs('model')['e1'].digest}` |" in card
    capsys.readouterr()
    with pytest.raises(StoreAddressError, match=r"holds refs of 2 catalogs .*; say whose"):
        ArtifactStore.open(store_root).refs("model")


def test_a_name_that_is_said_is_one_catalog_everywhere(tmp_path: Path) -> None:
    """The same models.yaml in two folders, as two machines of a team have it."""
    projects = [make_project(tmp_path / each, {}, experts=1) for each in ("a", "b")]
    for project in projects:
        path = project.catalog / "models.yaml"
        path.write_text("name: our-team\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert {named_settings(each.settings()).catalog_name for each in projects} == {"our-team"}

"""A store, and Dagster's instance, of the release before asset keys began with their recipe.

`earlier_store/record.py` recorded both, with that release's own code.
"""

import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import pytest
import torch

from assets.work import names
from assets.work.ranking.ranking import Sweep, promote, rank
from eval_ops.scores.leaderboard import Row
from orchestration.catalogs import load_catalog
from orchestration.commands import cli
from orchestration.definitions import contest_of
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.models.checkpoint_factory import read_tensors
from tests.orchestration.projects.tiny_project import TinyProject, make_project

RECORDED = Path(__file__).parent / "earlier_store" / "recorded.tar.xz"
POINTS = ("lambda=0.5|e1+e2", "lambda=1.0|e1+e2")
Ronghe = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The recorded project; this process's environment leads to it."""
    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path, filter="data")
    recorded = TinyProject(tmp_path, (tmp_path / "store").as_uri())
    for name, value in recorded.environment.items():
        monkeypatch.setenv(name, value)
    return recorded


@pytest.fixture
def store(project: TinyProject) -> ArtifactStore:
    return ArtifactStore.open(project.store)


@pytest.fixture
def ronghe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ronghe:
    """The command line in this process; what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["ronghe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured
        return captured.out

    return run


def test_names_of_today_find_what_earlier_ones_point_to(store: ArtifactStore) -> None:
    for present, earlier, partition in (
        *(("sums/merged_checkpoint", "merged_checkpoint/sums", point) for point in POINTS),
        *(("sums/scores", "benchmark_scores/sums", point) for point in POINTS),
        ("mix/step/warm", "merged_stage/mix/warm", None),
        ("mix/merged_checkpoint", "merged_checkpoint/mix", "default|e1+e2"),
        ("masked/emr_masks", "emr_masks/masked", "e1+e2"),
        ("sums/champion", "champion/sums", None),
        ("leaderboard", "leaderboard", None),
    ):
        before = store.ref(earlier, partition)
        assert before is not None, earlier
        found = names.ref_of(store, present, partition)
        assert found is not None, present
        assert found.history == before.history
        assert names.refs_of(store, present)[partition].history == before.history
        assert names.present_name(earlier) == present
        assert (names.earlier_name(present) or present) == earlier


def test_the_champion_is_the_incumbent_and_keeps_its_history(
    project: TinyProject, store: ArtifactStore, ronghe: Ronghe
) -> None:
    contest = contest_of(load_catalog(project.catalog))
    incumbent = store.resolve("champion/sums")
    assert incumbent is not None
    promotion = promote(store, contest, contest.recipe("sums"), "cpu", 1)
    assert promotion is not None
    assert promotion.champion is not None
    assert promotion.champion.digest == incumbent.digest
    assert promotion.decision is not None
    assert promotion.decision.opponent == "incumbent"

    other = store.ref("merged_checkpoint/sums", POINTS[0])
    assert other is not None
    store.point(names.champion("sums"), None, other.kind, other.digest, run="today")
    shown = ronghe("refs", "sums/champion")
    runs = ("0.5", "1.0", "today")
    assert [shown.index(f" {run} ") for run in runs] == sorted(shown.index(f" {r} ") for r in runs)
    assert ronghe("refs", "champion/sums").splitlines()[1:] == shown.splitlines()
    champion = names.resolve(store, "sums/champion")
    assert champion is not None
    assert champion.digest == other.digest


def test_commands_read_the_store(project: TinyProject, ronghe: Ronghe, tmp_path: Path) -> None:
    assert "sums" in ronghe("leaderboard")
    for asset in ("merged_checkpoint/sums", "sums/merged_checkpoint"):
        assert POINTS[0] in ronghe("refs", asset)
    assert "artifacts in" in ronghe("verify", "--kind", "checkpoint")
    ronghe("restore", "e1", "--out", str(tmp_path / "e1"))
    weights = "model.safetensors"
    upstream = tmp_path / "upstream" / "e1" / weights
    assert (tmp_path / "e1" / weights).read_bytes() == upstream.read_bytes()


def test_one_command_moves_the_refs(
    project: TinyProject, store: ArtifactStore, ronghe: Ronghe
) -> None:
    before = len(list((project.root / "store" / "refs").rglob("*.json")))
    assert f"{before} refs without a catalog would be moved" in ronghe("adopt-refs", "--dry-run")
    history = names.refs_of(store, "sums/champion")[None].history
    assert f"{before} refs without a catalog were moved" in ronghe("adopt-refs")
    assert "0 refs without a catalog were moved" in ronghe("adopt-refs")
    now = ArtifactStore.open(project.store)  # its only catalog
    assert str(now.upkeep.catalogs()[0]).startswith("catalog-")
    champion = now.ref("sums/champion")
    assert champion is not None
    assert champion.history == history
    assert set(now.refs("sums/merged_checkpoint")) == set(POINTS)
    assert "sums" in ronghe("leaderboard")
    with open_instance(project.settings()) as instance:
        report = refresh(instance, project.settings())
    assert report.failures == []
    assert report.counts["model"].rerun == set()
    out = project.root / "champion"
    ronghe("restore", "sums/champion", "--out", str(out))
    restored = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= restored


def test_a_refresh_of_the_earlier_instance_gives_each_checkpoint_its_name_of_today(
    project: TinyProject, store: ArtifactStore
) -> None:
    contest = contest_of(load_catalog(project.catalog))
    before = rank(store, contest)
    assert before.unscored == 0
    assert_its_sweep(before.sweeps[0], before.tables["colours"])
    merged = {key: ref.digest for key, ref in store.refs("merged_checkpoint/sums").items()}
    with open_instance(project.settings()) as instance:
        report = refresh(instance, project.settings())
        assert report.failures == []
        assert report.counts["sums/merged_checkpoint"].rerun == set(POINTS)
        assert report.counts["model"].rerun == set()
        assert refresh(instance, project.settings()).rerun == 0
        shown = instance.get_latest_materialization_event(dg.AssetKey("leaderboard"))
        assert shown is not None
        assert shown.asset_materialization is not None
        picture = str(shown.asset_materialization.metadata["sweep of sums"].value)
        assert picture.startswith("![plot](data:image/png;base64,")
    for key, ref in store.refs("sums/merged_checkpoint").items():
        now, before_that = (
            read_tensors(store.get("checkpoint", each).folder())
            for each in (ref.digest, merged[str(key)])
        )
        assert now.keys() == before_that.keys()
        for name, tensor in now.items():  # its last bit is this machine's
            torch.testing.assert_close(tensor, before_that[name], rtol=1e-6, atol=1e-8)
    after = rank(store, contest)
    assert after.unscored == 0
    labels = [row.label for row in after.tables["colours"]]
    assert sorted(labels) == sorted({row.label for row in before.tables["colours"]})
    champion = names.resolve(store, "sums/champion")
    assert champion is not None
    assert champion.digest in merged.values()


def test_names_alone_cost_no_merge_and_no_score(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Once everything is named as earlier, a refresh writes names and no artifact of a merge."""
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "experts": "all",
        "parameters": {"weight": 1.0},
        "sweep": {"lambda": [0.5, 1.0]},
        "suite": "colours",
    }
    project = make_project(tmp_path, {"sums": recipe}, experts=2)
    assert refresh(instance, project.settings()).failures == []
    (refs,) = (tmp_path / "store" / "refs").iterdir()  # those of the one catalog
    for present, earlier in (
        ("sums/merged_checkpoint", "merged_checkpoint/sums"),
        ("sums/scores", "benchmark_scores/sums"),
    ):
        (refs / earlier).parent.mkdir()
        (refs / present).rename(refs / earlier)
        for path in (refs / earlier).iterdir():
            document = {**json.loads(path.read_bytes()), "asset": earlier}
            path.write_text(json.dumps(document), encoding="utf-8")
    store = ArtifactStore.open(project.store)
    kinds = ("checkpoint", "scores", "tensor_keys")
    before = {kind: attempts(store, kind) for kind in kinds}
    with dg.DagsterInstance.ephemeral() as fresh:
        report = refresh(fresh, project.settings())
    assert report.failures == []
    assert report.counts["sums/merged_checkpoint"].rerun == set(POINTS)
    assert {kind: attempts(store, kind) for kind in kinds} == before
    assert set(store.refs("sums/merged_checkpoint")) == set(POINTS)
    assert set(store.refs("sums/scores")) == set(POINTS)


def assert_its_sweep(sweep: Sweep, rows: Sequence[Row]) -> None:
    """The sweep of `sums` has both points, and marks the one that the leaderboard's row has."""
    (row,) = [row for row in rows if row.recipe == "sums"]
    assert (sweep.recipe, sweep.expert_set, sweep.hidden) == ("sums", "e1+e2", 0)
    assert [point.coefficient for point in sweep.points] == ["lambda=0.5", "lambda=1.0"]
    assert sweep.chosen == row.coefficient
    (chosen,) = [point for point in sweep.points if point.coefficient == sweep.chosen]
    assert chosen.test == row.mean
    assert chosen.validation.value == max(point.validation.value for point in sweep.points)


def test_a_long_sweep_shows_its_best_points(
    project: TinyProject, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.work.ranking.sweeps.MOST_POINTS", 1)
    (sweep,) = rank(store, contest_of(load_catalog(project.catalog))).sweeps
    assert sweep.hidden == 1
    assert [point.coefficient for point in sweep.points] == [sweep.chosen]


def attempts(store: ArtifactStore, kind: str) -> dict[str, str]:
    """Which attempt made each artifact of a kind."""
    return {digest: store.get(kind, digest).manifest["attempt"] for digest in store.digests(kind)}

"""A refresh with virtual candidates: what is written, what Dagster shows, how to get the files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.work.names import resolve
from assets.work.ranking import ranking
from orchestration.refreshing.refresh import refresh
from resources.store import ArtifactStore
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, TinyProject, make_project

MERGED, SCORES, CHAMPION = (f"sums/{each}" for each in ("merged_checkpoint", "scores", "champion"))
POINTS = ("lambda=0.5|e1+e2", "lambda=1.0|e1+e2")
SUMS = {**TASK_ARITHMETIC, "experts": "all"}
Ronghe = Callable[..., tuple[int, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    made = make_project(tmp_path, {"sums": SUMS}, experts=2)
    judged = ranking.decide

    def lenient(*given: Any) -> Any:
        """The gate, but that models of noise, none of which is better, pass it."""
        return dataclasses.replace(judged(*given), promote=True)

    monkeypatch.setattr(ranking, "decide", lenient)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def run(project: TinyProject, instance: dg.DagsterInstance) -> dict[str, set[str | None]]:
    report = refresh(instance, project.settings())
    assert report.failures == []
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def shown(instance: dg.DagsterInstance, asset: str, partition: str | None) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(
        dg.AssetKey(asset.split("/")), asset_partitions=[partition] if partition else None
    )
    event = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


def written(store: ArtifactStore) -> dict[str, bool]:
    found = {point: resolve(store, MERGED, point) for point in POINTS}
    return {point: not each.virtual for point, each in found.items() if each is not None}


def test_only_the_champion_is_written_and_the_rest_when_it_is_asked_for(
    project: TinyProject, instance: dg.DagsterInstance, ronghe: Ronghe, tmp_path: Path
) -> None:
    run(project, instance)
    store = project.opened_store()
    champion = resolve(store, CHAMPION)
    assert champion is not None
    assert not champion.virtual
    assert sorted(written(store).values()) == [False, True]
    for point in POINTS:
        metadata = shown(instance, MERGED, point)
        assert metadata["virtual"] is True
        assert metadata["bytes when it is written"] > 0
        assert "uri" not in metadata
    assert "uri" in shown(instance, CHAMPION, None)
    scores = store.digests("scores")

    (virtual,) = [point for point, is_written in written(store).items() if not is_written]
    digest = resolve(store, MERGED, virtual).digest  # type: ignore[union-attr]
    assert ronghe("verify")[0] == 0
    status, told = ronghe("materialize", digest[:12])
    assert (status, f"checkpoint {digest}" in told) == (0, True), told
    assert all(written(store).values())
    assert "is written already" in ronghe("materialize", f"{MERGED}[{virtual}]")[1]
    for name, why in (("abc", "names nothing"), ("0" * 64, "nothing"), ("sums/x", "nothing")):
        status, told = ronghe("materialize", name)
        assert (status, why in told) == (2, True), told
    status, told = ronghe("restore", CHAMPION, "--out", str(tmp_path / "out"))
    assert (status, (tmp_path / "out" / "model.safetensors").is_file()) == (0, True), told
    assert ronghe("leaderboard")[0] == 0
    assert ronghe("doctor")[0] == 0
    assert run(project, instance) == {}
    assert store.digests("scores") == scores


def test_keep_none_and_keep_all(project: TinyProject, instance: dg.DagsterInstance) -> None:
    """The same scores and champions; a recipe that is changed to `all` writes what it has."""
    project.write_recipe("sums", {**SUMS, "keep": "none"})
    run(project, instance)
    store = project.opened_store()
    assert set(written(store).values()) == {False}
    champion = resolve(store, CHAMPION)
    assert champion is not None
    assert champion.virtual
    assert shown(instance, CHAMPION, None)["virtual"] is True
    scores = store.digests("scores")

    project.write_recipe("sums", {**SUMS, "keep": "all"})
    again = run(project, instance)
    assert again[MERGED] == set(POINTS)
    assert set(written(store).values()) == {True}
    assert store.digests("scores") == scores
    assert "uri" in shown(instance, MERGED, POINTS[0])
    now = resolve(store, CHAMPION)
    assert now is not None
    assert (now.digest, now.virtual) == (champion.digest, False)

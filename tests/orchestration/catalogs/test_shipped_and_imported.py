"""Shipped suites that a recipe names, and scores from elsewhere, in a catalog."""

import json
from pathlib import Path

import pytest
import yaml

from assets.evidence.imported_scores import imported_scores_key
from assets.work.ranking.collecting import Contest
from assets.work.ranking.imports import IMPORTED_FILE
from assets.work.ranking.ranking import rank
from orchestration.catalogs import load_catalog
from orchestration.definitions import contest_of
from resources.store import ArtifactStore
from tests.orchestration.projects.tiny_project import AVERAGE, write_models, write_suite


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in ("recipes", "suites", "items", "scores"):
        (tmp_path / folder).mkdir()
    write_models(tmp_path, ["e1", "e2"])
    write_suite(tmp_path)
    return tmp_path


def write_recipe(catalog: Path, suite: str) -> None:
    recipe = {**AVERAGE, "suite": suite}
    (catalog / "recipes" / "average.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def test_a_recipe_may_name_a_shipped_suite(catalog: Path) -> None:
    write_recipe(catalog, "zh")
    loaded = load_catalog(catalog)
    assert loaded.broken == {}
    assert loaded.suites["zh"].name == "zh.yaml"
    assert {"zh"} == set(loaded.suites_of_tasks) & set(loaded.suite_digests)


def test_the_catalogs_own_file_goes_before_the_shipped_one(catalog: Path) -> None:
    write_recipe(catalog, "zh")
    shipped = load_catalog(catalog).suite_digests["zh"]
    (catalog / "suites" / "zh.yaml").write_text("{shipped: zh, name: zh, limit: 5}")
    assert load_catalog(catalog).suite_digests["zh"] != shipped
    (catalog / "suites" / "zh.yaml").write_text("{shipped: zh, name: zh}")
    assert load_catalog(catalog).suite_digests["zh"] == shipped


@pytest.mark.parametrize(
    ("suite", "fault"), [("math-code", "allow_code: true"), ("mt-bench", "there is none; add")]
)
def test_what_a_shipped_suite_lacks_is_told_with_the_catalog(
    catalog: Path, suite: str, fault: str
) -> None:
    write_recipe(catalog, suite)
    (part,) = load_catalog(catalog).broken.values()
    assert part.id == f"suite {suite}"
    assert part.told_early
    assert fault in str(part)
    assert f"write it into suites/{suite}.yaml, with `shipped: {suite}`" in str(part)


def test_imported_scores_are_assets_and_stand_beside_the_leaderboard(
    catalog: Path, tmp_path: Path
) -> None:
    (catalog / "scores" / "paper.csv").write_text("model,benchmark,score,n\nm,C-Eval,0.7,100\n")
    (catalog / "scores" / "bad.csv").write_text("model,benchmark,score,n\nm,C-Eval,70,100\n")
    loaded = load_catalog(catalog)
    assert list(loaded.imported) == ["paper"]
    part = loaded.broken["file scores/bad.csv"]
    assert "not in percent" in str(part)
    assert contest_of(loaded).imported == {"paper": catalog / "scores" / "paper.csv"}
    assert imported_scores_key("paper").path == ["imported_scores", "paper"]
    store = ArtifactStore.open((tmp_path / "store").as_uri(), catalog="team")
    alone = Contest([], [], [], {}, imported=contest_of(loaded).imported)
    (row,) = json.loads(rank(store, alone).artifact.read_bytes(IMPORTED_FILE))
    assert (row["model"], row["score"], row["n"]) == ("m", 0.7, 100)
    assert row["low"] < 0.7 < row["high"]
    assert IMPORTED_FILE not in rank(store, Contest([], [], [], {})).artifact.files

"""A catalog in Chinese: names of models, recipes, suites and benchmarks, titles, descriptions."""

import unicodedata
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.catalogs import load_catalog
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import refresh
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    TinyProject,
    make_project,
    write_suite,
)

RECIPE, SUITE, BENCHMARK = "中药合并", "中医问答", "方剂"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """A recipe, a suite, a benchmark and a model with Chinese names; a recipe of equal length."""
    told = {"suite": SUITE, "title": "中药与成语", "description": "取*平均*"}
    recipes = {RECIPE: {**AVERAGE, **told}, "成语合并": AVERAGE}
    project = make_project(tmp_path_factory.mktemp("中文"), recipes, experts=2)
    suite = yaml.safe_load((project.catalog / "suites" / "colours.yaml").read_text())
    suite |= {"name": SUITE, "description": "两道题"}
    suite["benchmarks"] = [{**suite["benchmarks"][0], "name": BENCHMARK, "title": "方剂的归经"}]
    path = project.catalog / "suites" / f"{SUITE}.yaml"
    path.write_text(yaml.safe_dump(suite, allow_unicode=True), encoding="utf-8")
    models = (project.catalog / "models.yaml").read_text().replace("name: e1", "name: 诗词")
    (project.catalog / "models.yaml").write_text(models, encoding="utf-8")
    return project


def test_everything_is_made_and_named_as_it_is_called(project: TinyProject, monkeypatch) -> None:
    settings = project.settings()
    with dg.DagsterInstance.ephemeral() as instance:
        report = refresh(instance, settings)
        assert report.failures == []
        again = refresh(instance, settings)
    assert again.rerun == 0
    store = project.opened_store()
    for recipe in (RECIPE, "成语合并"):
        table = store.ref_table(f"{recipe}/merged_checkpoint")
        assert set(table.refs) == {"default|e2+诗词"}
        assert not table.damaged
    board = store.resolve("leaderboard")
    assert board is not None
    rows = board.read_json(f"{SUITE}.json")
    assert {row["recipe"] for row in rows} == {RECIPE, None}
    assert BENCHMARK in str(rows[0])


def test_dagster_shows_titles_and_descriptions(project: TinyProject) -> None:
    graph = build_definitions(project.settings()).resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {f"{RECIPE}/merged_checkpoint", f"{RECIPE}/scores", f"{RECIPE}/champion"} <= keys
    merged = graph.get(dg.AssetKey([RECIPE, "merged_checkpoint"]))
    assert merged.description is not None
    assert merged.description.startswith("**中药与成语**\n\n取\\*平均\\*\n\nMerged checkpoints")
    scores = graph.get(dg.AssetKey([RECIPE, "scores"])).description or ""
    assert "两道题" in scores
    assert "方剂: 方剂的归经" in scores
    groups = {graph.get(dg.AssetKey([name, "scores"])).group_name for name in (RECIPE, "成语合并")}
    assert len(groups) == 2


def test_names_that_a_disk_took_apart_are_put_together(tmp_path: Path) -> None:
    project = make_project(tmp_path, {}, experts=2)
    apart = unicodedata.normalize("NFD", "ガ合并")
    assert apart != "ガ合并"
    path = project.catalog / "recipes" / f"{apart}.yaml"
    path.write_text(yaml.safe_dump({**AVERAGE, "suite": apart}, allow_unicode=True))
    write_suite(project.catalog)
    suites = project.catalog / "suites"
    text = (suites / "colours.yaml").read_text(encoding="utf-8")
    (suites / f"{apart}.yaml").write_text(text.replace("name: colours", f"name: {apart}"))
    catalog = load_catalog(project.catalog)
    assert catalog.broken == {}
    assert list(catalog.recipes) == ["ガ合并"]
    assert catalog.recipes["ガ合并"].suite == "ガ合并"
    assert set(catalog.suite_digests) == {"ガ合并", "colours"}


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, {}, experts=2)
    for name in ("合并Ａ", "合并a"):
        (project.catalog / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(AVERAGE))
    broken = load_catalog(project.catalog).broken
    assert set(broken) == {"recipe 合并Ａ", "recipe 合并a"}
    assert "is nearly called '合并a'; many disks take them for one" in str(broken["recipe 合并Ａ"])

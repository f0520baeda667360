"""A recipe that searches, from observation to scores: studied, and merged at what was found."""

import re
from pathlib import Path

import dagster as dg
import pytest

from assets.work import names
from eval_ops.search import Study
from orchestration.catalogs import load_catalog
from orchestration.catalogs.catalog_name import named_settings
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, make_project

WIDE = {key: value for key, value in TASK_ARITHMETIC.items() if key != "sweep"} | {
    "experts": "all-pairs",
    "search": {
        "trials": 3,
        "sampler": "random",
        "parameters": {"lambda": {"low": 0.5, "high": 1.5}},
    },
}


def made(instance: dg.DagsterInstance, name: str) -> dict[str | None, dict[str, object]]:
    """Metadata of an asset's partitions."""
    key = dg.AssetKey.from_user_string(name)
    records = instance.fetch_materializations(key, limit=50).records
    events = [record.asset_materialization for record in reversed(records)]
    return {e.partition: {k: v.value for k, v in e.metadata.items()} for e in events if e}


def test_a_search_is_an_asset_with_its_trials(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"wide": WIDE}, experts=2)
    settings = project.settings()
    with open_instance(settings) as instance:
        assert refresh(instance, settings).failures == []
        (study,) = made(instance, "wide/search").values()
        assert (study["trials"], study["ended by"]) == (3, "trials")
        (merged,) = made(instance, "wide/merged_checkpoint").items()
        assert merged[0] == "searched|e1+e2"
        assert merged[1]["digest"] == study["its digest"]
        assert len(made(instance, "wide/scores")) == 1
        again = refresh(instance, settings)
        assert not any(count.rerun for count in again.counts.values())
        named = named_settings(settings)
        store = ArtifactStore.open(named.store, catalog=named.catalog_name)
        found = names.resolve(store, names.search("wide"), "e1+e2")
        assert found is not None
        assert len(Study.from_json(found.read_bytes("study.json")).trials) == 3
        project.write_recipe("wide", {**WIDE, "search": {**WIDE["search"], "trials": 4}})
        assert refresh(instance, settings).failures == []
        (study,) = made(instance, "wide/search").values()
        assert (study["trials"], study["scores that were in the store"]) == (4, 3)


EARLY = {**TASK_ARITHMETIC, "experts": "all-pairs", "gate": {"early_stopping": True}}
SOUP = {"merge_method": "linear", "experts": "all-pairs", "suite": "colours", "soup": "greedy"}


def test_soups_and_early_stopping_in_a_catalog(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"early": EARLY, "soup": SOUP}, experts=2)
    settings = project.settings()
    with open_instance(settings) as instance:
        assert refresh(instance, settings).failures == []
        (study,) = made(instance, "soup/search").values()
        (merged,) = made(instance, "soup/merged_checkpoint").items()
        assert merged == ("searched|e1+e2", merged[1])
        assert merged[1]["digest"] == study["its digest"]
        scores = made(instance, "early/scores")
        assert len(scores) == 2
        # These models all answer alike, so nobody is worse, and all are asked everything.
        assert all("mean on test items" in each for each in scores.values())
        again = refresh(instance, settings)
        assert not any(count.rerun for count in again.counts.values())


def test_a_soup_of_categories_needs_several(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"soup": {**SOUP, "soup": "soce"}}, experts=2)
    part = str(load_catalog(project.catalog).broken_of("recipe")["soup"])
    assert "soup is 'soce', which needs 3 experts in each set, and one is 'e1+e2'" in part
    assert "needs 2 benchmarks, and suite 'colours' has one; or use `soup: greedy`" in part


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"trials": 3}, r"recipes/wide.yaml: search parameters is missing"),
        (
            {"parameters": {"lambda": {"low": 0.5, "high": 1.5}}, "objective": "color"},
            r"search.objective 'color' is no benchmark of suite colours. Did you mean 'colour'\?",
        ),
        (
            {"parameters": {"lambda": {"low": 0.5, "high": 1.5, "per": "expert"}}},
            r"is `per: expert`, and task_arithmetic has one lambda for all",
        ),
    ],
)
def test_faults_are_told_by_the_catalog(
    tmp_path: Path, search: dict[str, object], told: str
) -> None:
    project = make_project(tmp_path, {"wide": {**WIDE, "search": search}}, experts=2)
    broken = load_catalog(project.catalog).broken["recipe wide"]
    assert re.search(told, str(broken))

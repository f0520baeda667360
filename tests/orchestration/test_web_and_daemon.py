"""What `make ui` gives: the daemon re-merges what an update touches, and the pages show it.

One project for the whole module, brought up to date by `ronghe refresh` first.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.automation import OBSERVE_JOB
from orchestration.daemon_sensor import SENSOR
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.browser import Page, wanted_browser
from tests.orchestration.projects.dagster_dev import DagsterDev, dagster_dev
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project
from tests.servers.waiting import HANG_SECONDS

ASSETS = ("model", "model_scores", "task_vector", "leaderboard")
KINDS = ("merge_plan", "merged_checkpoint", "scores", "champion")
OF_RECIPE = tuple(f"average/{kind}" for kind in KINDS)
SHOW_MARKDOWN = """(() => {
  const each = [...document.querySelectorAll('*')];
  const found = each.findLast(e => e.children.length == 0 && e.textContent == '[Show Markdown]');
  found?.click();
  return Boolean(found); })()"""
PICTURES = "[...document.querySelectorAll('img[src^=\"data:image/png\"]')].map(i => i.naturalWidth)"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    made = make_project(tmp_path_factory.mktemp("project"), {"average": AVERAGE})
    with open_instance(made.settings()) as instance:
        assert refresh(instance, made.settings()).failures == []
    return made


@pytest.fixture(scope="module")
def refreshed(project: TinyProject) -> set[str]:
    """Ids of the runs that there are before the daemon starts."""
    with open_instance(project.settings()) as instance:
        return {run.run_id for run in instance.get_runs()}


@pytest.fixture(scope="module")
def served(
    project: TinyProject, refreshed: set[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DagsterDev]:
    with dagster_dev(project, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with wanted_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The browser's tab; a page left open would ask the web server for news ever on."""
    yield tab
    tab.open("about:blank")


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/graphql?query=mutation%7BdeleteRun(runId:%22x%22)%7B__typename%7D%7D", {}),
        ("/graphql", {"Origin": "http://evil.example", "Content-Type": "application/json"}),
        ("/", {"Host": "evil.example"}),
    ],
)
def test_no_other_page_commands_this_one(
    served: DagsterDev, path: str, headers: dict[str, str]
) -> None:
    body = b'{"query": "{ version }"}' if "Origin" in headers else None
    request = urllib.request.Request(f"{served.address}{path}", body, headers)
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(request, timeout=HANG_SECONDS)
    assert "Ronghe refuses this request" in refused.value.read().decode()


def test_the_lineage_page_shows_the_way_from_model_to_champion(
    served: DagsterDev, page: Page, tmp_path: Path
) -> None:
    address = f"{served.address}/assets/average/merged_checkpoint"
    page.open(f"{address}?view=lineage&lineageScope=neighbors&lineageDepth=4")
    text = page.wait_for(
        "upstream_model", "task_vector", "merge_plan", "leaderboard", "models", "results"
    )
    assert "average" in text
    assert is_png(page.picture(tmp_path / "lineage.png"))


def test_the_partition_page_shows_the_grid(served: DagsterDev, page: Page, tmp_path: Path) -> None:
    page.open(f"{served.address}/assets/average/merged_checkpoint?view=partitions")
    text = page.wait_for("Materialized (4)", "Missing (0)", "Failed (0)", "e1+e2+e3")
    for partition in ("default", "e1+e2", "e1+e3", "e2+e3"):
        assert partition in text
    assert is_png(page.picture(tmp_path / "partitions.png"))


@pytest.mark.parametrize(
    ("asset", "partition"),
    [("average/merge_plan", "e1+e2+e3"), ("task_vector", "e1"), ("leaderboard", None)],
)
def test_plots_are_seen(
    served: DagsterDev, page: Page, tmp_path: Path, asset: str, partition: str | None
) -> None:
    where = f"?view=partitions&partition={partition.replace('+', '%2B')}" if partition else ""
    page.open(f"{served.address}/assets/{asset}{where}")
    page.wait_until(SHOW_MARKDOWN)
    page.wait_until(f"{PICTURES}.length > 0 && {PICTURES}.every(width => width > 200)")
    assert is_png(page.picture(tmp_path / "plot.png"))


def test_the_daemon_runs_exactly_what_an_update_touches(
    served: DagsterDev, project: TinyProject, refreshed: set[str]
) -> None:
    # The schedule observes too, every five minutes: one such run may fall into any of these waits.
    served.wait(lambda: served.last_tick(SENSOR) > 0, "the first look")
    observation = served.launch(OBSERVE_JOB)
    idle = served.settle(SENSOR)
    assert observation in idle
    assert served.jobs(idle - refreshed) == {OBSERVE_JOB}, "no change, and yet something ran"

    project.retrain("e2", seed=77)
    served.launch(OBSERVE_JOB)
    runs = served.settle(SENSOR) - idle
    status = served.runs()
    assert {status[run] for run in runs} == {"SUCCESS"}
    sets = {"e1+e2", "e1+e2+e3", "e2+e3"}
    grid = {f"default|{each}" for each in sets}
    assert {asset: served.materialized(asset, runs) for asset in (*ASSETS, *OF_RECIPE)} == {
        "model": {"e2"},
        "model_scores": {"e2"},
        "task_vector": {"e2"},
        "average/merge_plan": sets,
        "average/merged_checkpoint": grid,
        "average/scores": grid,
        "leaderboard": {None},
        "average/champion": {None},
    }
    store = ArtifactStore.open(project.store)
    for ref in store.refs("average/merged_checkpoint").values():
        assert store.verify(store.get(ref.kind, ref.digest)) == []

    with open_instance(project.settings()) as instance:  # and `ronghe refresh` finds nothing to do
        report = refresh(instance, project.settings())
    assert report.failures == []
    # One look cannot tell whether the daemon summed up before or after the last change: again then.
    rerun = {asset for asset, count in report.counts.items() if count.rerun}
    assert rerun <= {"leaderboard", "average/champion", "catalog_site"}

"""The daemon's sensor asks for what a refresh would run, in few runs; a bad part stops no other."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest

from assets.batches import MORE_RANGES, RANGE_END, RANGE_START, between
from orchestration.automation import OBSERVE_JOB
from orchestration.daemon_sensor import SENSOR
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import refresh
from orchestration.settings import load_settings
from tests import checkpoint_factory as factory
from tests.merging import ROOT
from tests.orchestration.tiny_project import AVERAGE, SLERP, TinyProject, make_project

GIVEN = {"dagster/data_version_is_user_provided": "true"}
# A run of one partition of a grid gets tags from Dagster that Dagster warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Non-compliant tag keys:DeprecationWarning")


class Daemon:
    """What a daemon does with the sensor, run after run in this process."""

    def __init__(self, project: TinyProject, instance: dg.DagsterInstance) -> None:
        self.instance, self.project, self.cursor = instance, project, None
        self.runs: list[tuple[set[str], bool]] = []

    def settle(self) -> dict[str, set[str | None]]:
        """Observe, look and run until nothing more is asked for; what was materialized."""
        definitions = build_definitions(self.project.settings())
        repository = definitions.get_repository_def()
        made: dict[str, set[str | None]] = {}
        self.runs = []
        definitions.resolve_job_def(OBSERVE_JOB).execute_in_process(instance=self.instance)
        job = definitions.resolve_implicit_global_asset_job_def()
        while True:
            context = dg.build_sensor_context(
                self.instance, cursor=self.cursor, repository_def=repository
            )
            tick = repository.get_sensor_def(SENSOR).evaluate_tick(context)
            self.cursor = tick.cursor
            if not tick.run_requests:
                return made
            for request in tick.run_requests:
                result = job.execute_in_process(
                    instance=self.instance,
                    asset_selection=list(request.asset_selection or ()),
                    partition_key=request.partition_key,
                    tags=dict(request.tags),
                    raise_on_error=False,
                )
                names = {key.to_user_string() for key in request.asset_selection or ()}
                self.runs.append((names, result.success))
                kind = dg.DagsterEventType.ASSET_MATERIALIZATION
                for entry in self.instance.all_logs(result.run_id, of_type=kind):
                    event = entry.get_dagster_event()
                    assert event.asset_key is not None
                    made.setdefault(event.asset_key.to_user_string(), set()).add(event.partition)


def test_an_update_takes_few_runs_and_touches_what_a_refresh_would(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE, "slerp": SLERP})
    daemon = Daemon(project, instance)
    daemon.settle()
    assert daemon.settle() == {}
    project.retrain("e2", seed=77)
    made = daemon.settle()
    sets, pairs = {"e1+e2", "e1+e2+e3", "e2+e3"}, {"e1+e2", "e2+e3"}
    points = {f"t={value}|{pair}" for value in (0.25, 0.5, 0.75) for pair in pairs}
    assert made == {
        "model": {"e2"},
        "model_scores": {"e2"},
        "task_vector": {"e2"},
        "average/merge_plan": sets,
        "slerp/merge_plan": pairs,
        "average/merged_checkpoint": {f"default|{each}" for each in sets},
        "slerp/merged_checkpoint": points,
        "average/scores": {f"default|{each}" for each in sets},
        "slerp/scores": points,
        "leaderboard": {None},
        "average/champion": {None},
        "slerp/champion": {None},
    }
    asked = sorted(sorted(names) for names, _ in daemon.runs)
    assert asked == [
        ["average/champion", "leaderboard", "slerp/champion"],
        ["average/merge_plan"],
        ["average/merged_checkpoint", "average/scores"],
        ["model", "model_scores"],
        ["slerp/merge_plan"],
        ["slerp/merged_checkpoint", "slerp/scores"],
        ["task_vector"],
    ]
    assert refresh(instance, project.settings()).rerun == 0


def test_a_model_that_fits_no_other_stops_its_own_sets_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE})
    factory.change_shape(tmp_path / "upstream" / "e3", "model.layers.0.mlp.up_proj.weight")
    daemon = Daemon(project, instance)
    made = daemon.settle()
    assert made["average/merged_checkpoint"] == {"default|e1+e2"}
    assert made["average/scores"] == {"default|e1+e2"}
    assert made["leaderboard"] == {None}
    assert not all(success for _, success in daemon.runs)


class Pretender:
    """A daemon whose runs make nothing: what they are for is reported as made."""

    def __init__(self, project: Path, instance: dg.DagsterInstance) -> None:
        given = {"RONGHE_CATALOG": str(project), "DAGSTER_HOME": str(project / "dagster")}
        definitions = build_definitions(load_settings(given))
        self.graph = definitions.resolve_asset_graph()
        self.repository = definitions.get_repository_def()
        self.instance, self.cursor, self.version = instance, None, 0

    def observe(self, models: dict[str, str]) -> None:
        """Report the revision of each upstream model."""
        for name, version in models.items():
            tags = {"dagster/data_version": version}
            seen = dg.AssetObservation("upstream_model", partition=name, tags=tags)
            self.instance.report_runless_asset_event(seen)

    def settle(self) -> list[set[str]]:
        """Look until nothing more is asked for; the assets of each run."""
        runs: list[set[str]] = []
        while True:
            context = dg.build_sensor_context(
                self.instance, cursor=self.cursor, repository_def=self.repository
            )
            tick = self.repository.get_sensor_def(SENSOR).evaluate_tick(context)
            self.cursor = tick.cursor
            if not tick.run_requests:
                return runs
            for request in tick.run_requests:
                self.make(request)
                runs.append({key.to_user_string() for key in request.asset_selection or ()})

    def make(self, request: dg.RunRequest) -> None:
        self.version += 1
        tags = {"dagster/data_version": f"v{self.version}", **GIVEN}
        for key in sorted(
            request.asset_selection or (), key=self.graph.toposorted_asset_keys.index
        ):
            definition, parts = self.graph.get(key).partitions_def, [None]
            if definition is not None and request.partition_key is not None:
                parts = [request.partition_key]
            elif definition is not None:
                ranges = [(request.tags[RANGE_START], request.tags[RANGE_END])]
                ranges += json.loads(request.tags.get(MORE_RANGES, "[]"))
                parts = [part for ends in ranges for part in between(definition, *ends)]
            for part in parts:
                made = dg.AssetMaterialization(key, partition=part and str(part), tags=tags)
                self.instance.report_runless_asset_event(made)


def test_an_update_of_the_demo_takes_twelve_runs_with_the_look_that_saw_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shutil.copytree(ROOT / "catalog", tmp_path / "catalog")
    (tmp_path / ".ronghe" / "suites").mkdir(parents=True)
    for benchmark in ("herb_class", "idiom_meaning", "times_table"):
        rows = [
            {"id": each, "split": each, "prompt": each, "choices": ["a", "b"], "answer": 0}
            for each in ("validation", "test")
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / ".ronghe" / "suites" / f"{benchmark}.jsonl").write_text(text, encoding="utf-8")
    daemon = Pretender(tmp_path / "catalog", instance)
    models = ("tiny-base", "herbs", "idioms", "times-table")
    daemon.observe(dict.fromkeys(models, "1"))
    daemon.settle()
    daemon.observe({"idioms": "2"})
    runs = daemon.settle()
    everything = {each for run in runs for each in run}
    recipes = {path.stem for path in (ROOT / "catalog" / "recipes").glob("*.yaml")}
    kinds = ("merge_plan", "merged_checkpoint", "scores", "champion")
    assert everything == {
        *("model", "model_scores", "task_vector", "leaderboard"),
        *(f"{recipe}/{kind}" for recipe in recipes for kind in kinds),
    }
    assert len(runs) + 1 <= 12, runs

"""The daemon's sensor asks for what a refresh would run, in few runs; a bad part stops no other."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.checks import CHECK
from assets.frame.batches import MORE_RANGES, RANGE_END, RANGE_START, between
from assets.frame.dagster_internals import AssetCheckTarget
from orchestration.automation import OBSERVE_JOB
from orchestration.daemon_sensor import SENSOR
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import refresh
from orchestration.run_plans import PARTITION
from orchestration.settings import load_settings
from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import AVERAGE, SLERP, TinyProject, make_project

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
        "catalog_site": {None},
    }
    asked = sorted(sorted(names) for names, _ in daemon.runs)
    assert asked == [
        ["average/champion", "catalog_site", "leaderboard", "slerp/champion"],
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


SLICES = 3
"""Of a run's partitions, so many thirds are reported between two looks."""
AT_ONCE = 2
"""Runs at work at once, as dagster.yaml says."""


@dataclass
class AtWork:
    """A run that is not over, and the partitions that it has yet to report."""

    run_id: str
    to_report: list[tuple[dg.AssetKey, str | None]]
    slice: int


class Pretender:
    """A daemon whose runs make nothing: what they are for is reported as made."""

    def __init__(self, project: Path, instance: dg.DagsterInstance) -> None:
        given = {"RONGHE_CATALOG": str(project), "DAGSTER_HOME": str(project / "dagster")}
        definitions = build_definitions(load_settings(given))
        self.graph = definitions.resolve_asset_graph()
        self.repository = definitions.get_repository_def()
        self.instance, self.cursor, self.version = instance, None, 0
        self.fails: set[tuple[str, str | None]] = set()

    def observe(self, models: dict[str, str]) -> None:
        """Report the revision of each upstream model."""
        for name, version in models.items():
            tags = {"dagster/data_version": version}
            seen = dg.AssetObservation("upstream_model", partition=name, tags=tags)
            self.instance.report_runless_asset_event(seen)

    def look(self) -> list[dg.RunRequest]:
        """Look once; the runs that are asked for."""
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.repository
        )
        tick = self.repository.get_sensor_def(SENSOR).evaluate_tick(context)
        self.cursor = tick.cursor
        return list(tick.run_requests or ())

    def settle(self) -> list[set[str]]:
        """Look, with runs that are over at once, until nothing more is asked for; their assets."""
        runs: list[set[str]] = []
        while asked := self.look():
            for request in asked:
                for key, part in self.parts(request):
                    self.report(key, part)
                runs.append(assets_of(request))
        return runs

    def settle_amid_runs(self) -> list[set[str]]:
        """Look likewise, while runs report their partitions bit by bit; the assets of the runs."""
        runs: list[set[str]] = []
        queue: list[AtWork] = []
        while (asked := self.look()) or queue:
            for request in asked:
                runs.append(assets_of(request))
                queue.append(self.start(request))
            for work in queue[:AT_ONCE]:
                for key, part in work.to_report[: work.slice]:
                    self.report(key, part)
                work.to_report = work.to_report[work.slice :]
                if not work.to_report:
                    ended = dg.DagsterEvent("PIPELINE_SUCCESS", "pretended")
                    self.instance.report_dagster_event(ended, work.run_id)
                    queue.remove(work)
        return runs

    def start(self, request: dg.RunRequest) -> AtWork:
        """Begin a run, as far as Dagster knows."""
        to_report, tags = self.parts(request), dict(request.tags)
        if request.partition_key is not None:
            tags[PARTITION] = request.partition_key
        run = dg.DagsterRun(
            "pretended",
            asset_selection=frozenset(request.asset_selection or ()),
            tags=tags,
            status=dg.DagsterRunStatus.STARTED,
        )
        self.instance.add_run(run)
        return AtWork(run.run_id, to_report, -(-len(to_report) // SLICES))

    def parts(self, request: dg.RunRequest) -> list[tuple[dg.AssetKey, str | None]]:
        """What a run is for, asset by asset in the graph's order."""
        found: list[tuple[dg.AssetKey, str | None]] = []
        for key in sorted(
            request.asset_selection or (), key=self.graph.toposorted_asset_keys.index
        ):
            definition, parts = self.graph.get(key).partitions_def, [None]
            if definition is not None and request.partition_key is not None:
                parts = [request.partition_key]
            elif definition is not None:
                ranges = [(request.tags[RANGE_START], request.tags[RANGE_END])]
                ranges += json.loads(request.tags.get(MORE_RANGES, "[]"))
                parts = [str(part) for ends in ranges for part in between(definition, *ends)]
            found += [(key, part) for part in parts]
        return found

    def report(self, key: dg.AssetKey, part: str | None) -> None:
        """Report a partition as made, in a new version, unless it is one that fails."""
        if (key.to_user_string(), part) in self.fails:
            return
        self.version += 1
        tags = {"dagster/data_version": f"v{self.version}", **GIVEN}
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=part, tags=tags)
        )
        if key.path[-1] == "merged_checkpoint":
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION
            made = self.instance.get_latest_storage_id_by_partition(key, kind, {str(part)})
            target = AssetCheckTarget(storage_id=made[str(part)], run_id="", timestamp=0.0)
            found: Any = dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=CHECK,
                passed=True,
                partition=part,
                blocking=True,
                target_materialization_data=target,
            )
            kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
            sound = dg.DagsterEvent(kind.value, "pretended", event_specific_data=found)
            self.instance.report_dagster_event(sound, f"run {self.version}")


def assets_of(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


def demo(tmp_path: Path, instance: dg.DagsterInstance) -> Pretender:
    """The demo's catalog with everything made, and one expert that has changed since."""
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
    return daemon


def everything_of_the_demo() -> set[str]:
    recipes = {path.stem for path in (ROOT / "catalog" / "recipes").glob("*.yaml")}
    kinds = ("merge_plan", "merged_checkpoint", "scores", "champion")
    return {
        *("model", "model_scores", "task_vector", "leaderboard", "catalog_site"),
        *(f"{recipe}/{kind}" for recipe in recipes for kind in kinds),
    }


def test_were_runs_over_at_once_an_update_of_the_demo_would_take_twelve_with_the_look_that_saw_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    runs = demo(tmp_path, instance).settle()
    assert {each for run in runs for each in run} == everything_of_the_demo()
    assert len(runs) + 1 <= 12, runs


def test_an_update_of_the_demo_takes_no_more_runs_when_the_daemon_looks_amid_them(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    daemon = demo(tmp_path, instance)
    runs = daemon.settle_amid_runs()
    assert {each for run in runs for each in run} == everything_of_the_demo()
    assert len(runs) + 1 <= 12, runs
    assert daemon.settle_amid_runs() == []


def test_what_waits_for_a_partition_that_fails_is_asked_for_once_that_run_is_over(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE})
    daemon = Pretender(project.catalog, instance)
    daemon.observe({"base": "1", "e1": "1", "e2": "1", "e3": "1"})
    daemon.settle_amid_runs()
    daemon.observe({"e2": "2"})
    daemon.fails = {("average/merge_plan", "e2+e3"), ("average/scores", "default|e1+e2")}
    runs = daemon.settle_amid_runs()
    assert runs == [
        {"model", "model_scores"},
        {"task_vector"},
        {"average/merge_plan"},
        {"average/merged_checkpoint", "average/scores"},
        {"average/scores"},  # asked for by themselves for the first time
        {"leaderboard", "average/champion", "catalog_site"},
    ]
    daemon.fails = set()
    daemon.observe({"e2": "3"})
    assert len(daemon.settle_amid_runs()) == 5


def test_summaries_that_an_earlier_release_held_are_asked_for(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    daemon = Pretender(make_project(tmp_path, {"average": AVERAGE}).catalog, instance)
    daemon.settle()
    assert daemon.settle() == []
    daemon.cursor = json.dumps({"conditions": daemon.cursor, "held": ["leaderboard", "gone"]})
    assert daemon.settle()[0] == {"leaderboard"}
    assert daemon.settle() == []

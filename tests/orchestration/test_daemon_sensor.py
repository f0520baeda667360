"""The daemon's sensor asks for what a refresh would run, in few runs; a bad part stops no other."""

from pathlib import Path

import dagster as dg

from orchestration.automation import OBSERVE_JOB
from orchestration.daemon_sensor import SENSOR
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import refresh
from tests import checkpoint_factory as factory
from tests.orchestration.tiny_project import AVERAGE, SLERP, TinyProject, make_project


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

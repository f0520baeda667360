"""Windows over a training run in a catalog: what a new step makes anew, on a Dagster instance."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.refreshing.refresh import refresh
from tests import checkpoint_factory as factory
from tests.orchestration.tiny_project import SHAPE, TinyProject, make_project

TAIL = {
    "window": {"run": "pretrain"},
    "sweep": {"last": [2, 4], "weights": ["uniform", "one_minus_sqrt"]},
}
FIRST = {"window": {"run": "pretrain", "steps": [100, 200]}}
DEEP = [
    {"name": "early", "window": {"run": "pretrain", "steps": [100, 200]}},
    {"name": "late", "window": {"run": "pretrain", "last": 2}},
    {
        "merge_method": "linear",
        "models": [
            {"model": "early", "parameters": {"weight": 0.5}},
            {"model": "late", "parameters": {"weight": 0.5}},
        ],
    },
]
POINTS = {
    f"last={last}_weights={each}|pretrain"
    for last in (2, 4)
    for each in ("uniform", "one_minus_sqrt")
}


def save_step(run: Path, step: int) -> None:
    """A step of a run: the base, moved further from it the later it is."""
    base = factory.base_tensors(SHAPE)
    factory.write_checkpoint(run / f"checkpoint-{step}", factory.expert_tensors(base, step), SHAPE)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    made = make_project(tmp_path, {"tail": TAIL, "first": FIRST}, experts=1)
    path = made.catalog / "recipes" / "deep.yaml"
    path.write_text(yaml.safe_dump_all(DEEP), encoding="utf-8")
    models = yaml.safe_load((made.catalog / "models.yaml").read_text(encoding="utf-8"))
    models["runs"] = [{"name": "pretrain", "steps": "../run", "licence": "apache-2.0"}]
    (made.catalog / "models.yaml").write_text(yaml.safe_dump(models), encoding="utf-8")
    for step in range(100, 1300, 100):
        save_step(tmp_path / "run", step)
    return made


def run(project: TinyProject, instance: dg.DagsterInstance) -> dict[str, set[str | None]]:
    report = refresh(instance, project.settings())
    assert report.failures == []
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def test_a_thirteenth_step_makes_exactly_the_windows_that_hold_it_again(
    project: TinyProject, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    first = run(project, instance)
    assert first["run_step"] == {f"pretrain@{step}" for step in range(100, 1300, 100)}
    assert first["tail/window"] == first["tail/merged_checkpoint"] == POINTS
    assert first["first/merged_checkpoint"] == {"default|pretrain"}
    assert first["deep/step/early"] == first["deep/step/late"] == {None}
    assert run(project, instance) == {}
    save_step(tmp_path / "run", 1300)
    changed = run(project, instance)
    print(changed)
    assert changed["run_step"] == {"pretrain@1300"}
    assert changed["tail/merged_checkpoint"] == POINTS
    assert "first/merged_checkpoint" not in changed
    assert "deep/step/early" not in changed
    assert changed["deep/step/late"] == {None}
    assert changed["deep/merged_checkpoint"] == {"default|pretrain"}
    assert run(project, instance) == {}

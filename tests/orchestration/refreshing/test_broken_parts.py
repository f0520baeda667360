"""One bad part is one fault with its name: the rest loads, merges, is scored and ranked."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from merge_ops.errors import RongheError
from orchestration.catalogs import load_catalog
from orchestration.commands.refresh_command import by_cause
from orchestration.refreshing.refresh import RefreshReport, refresh
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.brought_up import ProjectsBroughtUp
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    TASK_ARITHMETIC,
    TinyProject,
    make_project,
    write_models,
)

SUMS = {**TASK_ARITHMETIC, "experts": "all", "sweep": {"lambda": [1.0]}}
PAIRS = {**AVERAGE, "experts": "all"}


def rows(project: TinyProject, suite: str = "colours") -> dict[str, dict[str, Any]]:
    """The leaderboard's rows of one suite by label."""
    board = store_of(project).resolve("leaderboard")
    assert board is not None
    return {row["label"]: row for row in board.read_json(f"{suite}.json")}


def store_of(project: TinyProject) -> ArtifactStore:
    return ArtifactStore.open(project.store)


def rerun(report: RefreshReport) -> set[str]:
    return {asset for asset, count in report.counts.items() if count.rerun}


def write_suite_of(project: TinyProject, name: str, benchmark: str) -> None:
    """Another suite: the same items under another benchmark's name."""
    benchmarks = [{"name": benchmark, "items": "../items/colours.jsonl"}]
    text = yaml.safe_dump({"name": name, "benchmarks": benchmarks})
    (project.catalog / "suites" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_a_broken_recipe_keeps_its_rows_and_is_merged_anew_when_it_is_mended(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"average": PAIRS, "sums": SUMS}, experts=2)
    sums = "sums e1+e2 lambda=1.0"
    assert rows(project)[sums].get("stale") is None

    project.write_recipe("sums", {**SUMS, "merge_method": "task_aritmetic"})
    project.retrain("e2", seed=9)
    report = refresh(instance, project.settings())
    (failure,) = report.failures
    assert "broken/recipe/sums" in failure
    assert "recipes/sums.yaml: merge_method: no merge method is called 'task_aritmetic'" in failure
    assert {"average/merged_checkpoint", "average/scores", "leaderboard"} <= rerun(report)
    assert "no merge method is called" in rows(project)[sums]["stale"]
    assert not any(row.get("stale") for label, row in rows(project).items() if label != sums)

    project.write_recipe("sums", {**SUMS, "parameters": {"weight": 0.5}})
    report = refresh(instance, project.settings())
    assert report.failures == []
    assert {"sums/merged_checkpoint", "sums/scores"} <= rerun(report)  # weight and e2 are new
    assert rows(project)[sums].get("stale") is None
    assert rerun(refresh(instance, project.settings())) == set()


def test_two_suites_with_other_benchmarks_are_ordinary_and_break_one_by_one(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"average": PAIRS, "sums": SUMS}, experts=2)
    write_suite_of(project, "shades", "shade")
    project.write_recipe("sums", {**SUMS, "suite": "shades"})
    assert refresh(instance, project.settings()).failures == []
    before = rows(project, "shades")
    assert set(before) == {"base", "e1", "e2", "sums e1+e2 lambda=1.0"}
    assert before["e1"]["benchmarks"].keys() == {"shade"}

    path = project.catalog / "suites" / "shades.yaml"
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace("items:", "itms:"), encoding="utf-8")
    project.retrain("e1", seed=5)
    report = refresh(instance, project.settings())
    (failure,) = report.failures
    assert "suite shades: suites/shades.yaml benchmarks[0].itms is not a known key" in failure
    assert "average/scores" in rerun(report)
    assert rows(project)["e1"].get("stale") is None
    kept = rows(project, "shades")
    assert {label: row["mean"] for label, row in kept.items()} == {
        label: row["mean"] for label, row in before.items()
    }
    assert all("itms is not a known key" in row["stale"] for row in kept.values())

    path.write_text(sound, encoding="utf-8")
    report = refresh(instance, project.settings())
    assert report.failures == []
    assert "sums/scores" in rerun(report)
    assert not any(row.get("stale") for row in rows(project, "shades").values())


def test_a_broken_model_keeps_its_expert_sets(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    recipe = {**AVERAGE, "experts": ["all-pairs", "all"]}
    project = make_project(tmp_path, {"average": recipe}, experts=3)
    assert refresh(instance, project.settings()).failures == []
    labels = set(rows(project))
    models = project.catalog / "models.yaml"
    sound = models.read_text(encoding="utf-8")

    models.write_text(sound.replace("name: e3", "name: e3\n  kind: lroa"), encoding="utf-8")
    project.retrain("e1", seed=5)
    report = refresh(instance, project.settings())
    (failure,) = report.failures
    assert "model e3: models.yaml: models[3].kind is 'lroa'" in failure
    assert load_catalog(project.catalog).sets == ("e1+e2", "e1+e2+e3", "e1+e3", "e2+e3")
    assert set(rows(project)) == labels
    old = {label for label, row in rows(project).items() if row.get("stale")}
    assert old == {label for label in labels if "e3" in label}

    models.write_text(sound, encoding="utf-8")
    assert refresh(instance, project.settings()).failures == []
    assert not any(row.get("stale") for row in rows(project).values())


def test_a_damaged_ref_is_one_fault(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"average": PAIRS, "sums": SUMS}, experts=2)
    (ref,) = (project.root / "store" / "refs").rglob("model_scores/colours/e1.json")
    ref.write_bytes(ref.read_bytes()[:40])
    project.retrain("e2", seed=5)
    report = refresh(instance, project.settings())
    assert [failure for failure in report.failures if "colours/e1.json" not in failure] == []
    told = {failure.split(":")[0] for failure in report.failures}
    assert {"leaderboard", "average/champion", "sums/champion"} <= told
    assert len(by_cause(report.failures)) == 1
    assert set(rows(project)) == {"base", "e2", "average e1+e2", "sums e1+e2 lambda=1.0"}


def test_a_model_that_is_removed_leaves_whoever_ranked_last(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """What a daemon ran meanwhile does not swallow that the catalog changed."""
    project = make_project(tmp_path, {"average": {**AVERAGE, "experts": [["e1", "e2"]]}}, experts=3)
    assert refresh(instance, project.settings()).failures == []
    assert "e3" in rows(project)
    project.retrain("e1", seed=5)
    cursors = instance.daemon_cursor_storage
    seen = cursors.get_cursor_values({"ronghe.refresh.cursor", "ronghe.refresh.waiting"})
    assert refresh(instance, project.settings()).failures == []
    cursors.set_cursor_values(seen)  # as if another process had run that
    write_models(project.catalog, ["e1", "e2"])
    assert "leaderboard" in rerun(refresh(instance, project.settings()))
    assert "e3" not in rows(project)


@pytest.mark.parametrize("spoiled", ["zeros", "nan"])
def test_no_diagnostic_stops_a_merge(
    tmp_path: Path, instance: dg.DagsterInstance, spoiled: str
) -> None:
    from safetensors.torch import load_file, save_file

    project = make_project(tmp_path, {"average": {**AVERAGE, "experts": "all-pairs"}}, experts=3)
    file = tmp_path / "upstream" / ("base" if spoiled == "zeros" else "e3") / "model.safetensors"
    tensors = load_file(file)
    name = sorted(name for name in tensors if name.endswith("q_proj.weight"))[0]
    tensors[name] = tensors[name] * (0.0 if spoiled == "zeros" else float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    report = refresh(instance, project.settings())
    assert report.counts["task_vector"].rerun == {"e1", "e2", "e3"}
    merged = report.counts["average/merged_checkpoint"].rerun
    scores = report.counts["average/scores"]
    study = store_of(project).resolve("task_vector", "e3")
    assert study is not None
    (change,) = (row for row in study.read_json("study.json")["tensors"] if row["name"] == name)
    assert change["relative_norm"] is None
    if spoiled == "zeros":
        assert report.failures == []
        assert len(merged) == 3
    else:
        assert len(merged) == 3  # planned alone: a merge meets the NaN where it is scored
        assert scores.rerun - scores.failed == {"default|e1+e2"}
        assert [f for f in report.failures if "e3" not in f] == []
        assert "average e1+e2" in rows(project)


def test_a_picture_that_cannot_be_drawn_is_told_and_stops_nothing(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("no font")

    for name in ("layer_norm_plot", "heatmap", "leaderboard_plot"):
        monkeypatch.setattr(f"eval_ops.plots.{name}", fail)
    monkeypatch.setattr("merge_ops.jobs.statistics.interference", fail)
    project = make_project(tmp_path, {"average": PAIRS}, experts=2)
    report = refresh(instance, project.settings())
    assert {failure.split(":")[0] for failure in report.failures} == {
        "task_vector [e1]",
        "task_vector [e2]",
        "average/merge_plan [e1+e2]",
        "leaderboard",
    }
    assert all("no font" in failure for failure in report.failures)
    assert "average e1+e2" in rows(project)


def test_an_unknown_task_is_told_before_any_merge_and_stops_none(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    # To read all of lm-eval's takes many seconds; that those are known is tested in eval_ops.
    few = TaskManager(include_defaults=False)
    monkeypatch.setattr("eval_ops.suites.harness._manager_of_all", lambda: few)
    project = make_project(tmp_path, {"average": PAIRS}, experts=2)
    benchmarks = [{"name": "medicine", "task": "cmlu_traditional_chinese_medicine"}]
    text = yaml.safe_dump({"name": "tasks-of-others", "benchmarks": benchmarks})
    (project.catalog / "suites" / "tasks-of-others.yaml").write_text(text, encoding="utf-8")
    project.write_recipe("sums", {**SUMS, "suite": "tasks-of-others"})
    report = refresh(instance, project.settings())
    assert all("has no built-in task 'cmlu_" in failure for failure in report.failures)
    assert report.failures[0].startswith("checked_suite/tasks_of_others_")
    assert report.counts["sums/scores"].failed == set()  # it waits, and is not named again
    assert report.counts["sums/merged_checkpoint"].rerun == {"lambda=1.0|e1+e2"}
    assert set(rows(project)) == {"base", "e1", "e2", "average e1+e2"}


def test_a_champion_that_fails_stops_no_other_and_no_page(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaderboard, champions and page are one run; what a failure kept from its turn follows."""
    from assets.evidence import champions

    promote = champions.promote

    def fail_for_sums(store: Any, contest: Any, recipe: Any, *more: Any) -> Any:
        if recipe.name == "sums":
            raise RongheError("no champion today")
        return promote(store, contest, recipe, *more)

    monkeypatch.setattr(champions, "promote", fail_for_sums)
    project = make_project(tmp_path, {"average": PAIRS, "sums": SUMS}, experts=2)
    report = refresh(instance, project.settings())
    assert [failure for failure in report.failures if "no champion today" not in failure] == []
    assert report.counts["sums/champion"].failed == {None}
    assert {"leaderboard", "average/champion", "catalog_site"} <= rerun(report)
    monkeypatch.setattr(champions, "promote", promote)
    assert rerun(refresh(instance, project.settings())) == {"sums/champion", "catalog_site"}

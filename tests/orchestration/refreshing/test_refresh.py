"""A refresh runs exactly what a change touches: real checkpoints, real store, real Dagster."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import RefreshReport, refresh
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.brought_up import ProjectsBroughtUp
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    SLERP,
    TASK_ARITHMETIC,
    TinyProject,
    make_project,
)


def rerun(report: RefreshReport) -> dict[str, set[str | None]]:
    """What was materialized, by asset; assets of which nothing was are left out."""
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def run(project: TinyProject, instance: dg.DagsterInstance) -> RefreshReport:
    """A refresh that must succeed."""
    report = refresh(instance, project.settings())
    assert report.failures == []
    return report


def materialization_metadata(
    instance: dg.DagsterInstance, asset: str, partition: str
) -> Mapping[str, object]:
    """Metadata of a partition's last materialization."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset.split("/")), asset_partitions=[partition]), limit=1
    ).records
    event = records[0].asset_materialization
    assert event is not None
    return {key: value.value for key, value in event.metadata.items()}


def test_an_update_reruns_exactly_the_sets_that_hold_the_expert(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    recipes = {"task_arithmetic": TASK_ARITHMETIC, "slerp": SLERP}
    project = make_project(tmp_path, recipes)  # base, e1, e2, e3: four models
    first = run(project, instance)
    assert all(count.up_to_date == 0 for count in first.counts.values())
    assert len(first.counts["task_arithmetic/merged_checkpoint"].rerun) == 8
    assert len(first.counts["slerp/merged_checkpoint"].rerun) == 9

    again = run(project, instance)
    assert rerun(again) == {}
    assert again.runs == 0  # a look at the upstream models is none

    project.retrain("e2", seed=77)
    sets = {"e1+e2", "e1+e2+e3", "e2+e3"}
    pairs = {"e1+e2", "e2+e3"}
    sums = {f"lambda={value}|{each}" for value in (0.5, 1.0) for each in sets}
    arcs = {f"t={value}|{pair}" for value in (0.25, 0.5, 0.75) for pair in pairs}
    assert rerun(run(project, instance)) == {
        "model": {"e2"},
        "model_scores": {"e2"},
        "task_vector": {"e2"},
        "task_arithmetic/merge_plan": sets,
        "slerp/merge_plan": pairs,
        "task_arithmetic/merged_checkpoint": sums,
        "slerp/merged_checkpoint": arcs,
        "task_arithmetic/scores": sums,
        "slerp/scores": arcs,
        "leaderboard": {None},
        "task_arithmetic/champion": {None},
        "slerp/champion": {None},
        "catalog_site": {None},
    }
    assert rerun(run(project, instance)) == {}


def test_the_whole_pipeline_on_each_kind_of_store(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    store_root: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    written = {**AVERAGE, "keep": "all"}
    project = make_project(tmp_path, {"average": written}, experts=2, store=store_root)
    caplog.set_level("DEBUG")
    run(project, instance)
    store = ArtifactStore.open(store_root)
    merged = store.resolve("average/merged_checkpoint", "default|e1+e2")
    assert merged is not None
    assert store.verify(merged) == []
    named = store.ref("average/merged_checkpoint", "default|e1+e2")
    assert named is not None
    assert named.fields["models"].keys() == {"e1", "e2"}
    assert merged.manifest["inputs"] == sorted(named.fields["models"].values())
    table = store.resolve("leaderboard")
    assert table is not None
    rows = table.read_json("colours.json")
    assert {row["label"] for row in rows} == {"base", "e1", "e2", "average e1+e2"}
    shown = materialization_metadata(instance, "average/merged_checkpoint", "default|e1+e2")
    assert shown["uri"] == merged.location
    assert shown["digest"] == merged.digest
    for secret in store.place.secrets():
        written = [*(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())]
        written += [(store.place.read(entry.key) or (b"",))[0] for entry in store.place.walk("")]
        for each in instance.get_runs():
            events = instance.all_logs(each.run_id)
            written += [dg.serialize_value(event).encode() for event in (each, *events)]
        written += [caplog.text.encode(), *(text.encode() for text in capfd.readouterr())]
        assert len(written) > 50
        assert not [data for data in written if secret.encode() in data]


def test_what_is_in_the_store_is_neither_merged_nor_scored_again(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"task_arithmetic": TASK_ARITHMETIC}, experts=2)
    store = ArtifactStore.open(project.store)
    kinds = ("model", "task_vector", "merge_plan", "checkpoint", "scores")
    before = {kind: store.digests(kind) for kind in kinds}
    assert (len(before["checkpoint"]), len(before["scores"])) == (2, 5)
    attempts = sorted(path.name for path in (project.root / "store" / "attempts").iterdir())

    with dg.DagsterInstance.ephemeral() as another:  # knows nothing, so it materializes all again
        again = run(project, another)
        assert all(count.up_to_date == 0 for count in again.counts.values())
        for key in ("lambda=0.5|e1+e2", "lambda=1.0|e1+e2"):
            for asset in ("task_arithmetic/merged_checkpoint", "task_arithmetic/scores"):
                assert materialization_metadata(another, asset, key)["memoized"] is True
        assert materialization_metadata(another, "model", "e1")["memoized"] is True
    assert {kind: store.digests(kind) for kind in kinds} == before
    assert attempts == sorted(path.name for path in (project.root / "store" / "attempts").iterdir())


def test_a_new_recipe_a_new_coefficient_and_a_changed_recipe_run_and_nothing_else(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"task_arithmetic": TASK_ARITHMETIC}, experts=2)
    swept = {**TASK_ARITHMETIC, "sweep": {"lambda": [0.5, 0.75, 1.0]}}
    project.write_recipe("task_arithmetic", swept)
    project.write_recipe("average", AVERAGE)
    assert rerun(run(project, instance)) == {
        "task_arithmetic/merged_checkpoint": {"lambda=0.75|e1+e2"},
        "task_arithmetic/scores": {"lambda=0.75|e1+e2"},
        "average/merge_plan": {"e1+e2"},
        "average/merged_checkpoint": {"default|e1+e2"},
        "average/scores": {"default|e1+e2"},
        "leaderboard": {None},
        "average/champion": {None},
        "task_arithmetic/champion": {None},
        "catalog_site": {None},
    }

    project.write_recipe("task_arithmetic", {**swept, "parameters": {"weight": 0.5}})
    changed = rerun(run(project, instance))
    assert len(changed["task_arithmetic/merged_checkpoint"]) == 3
    assert len(changed["task_arithmetic/scores"]) == 3
    assert "average/merged_checkpoint" not in changed
    assert not [asset for asset in changed if asset.endswith("merge_plan")]


def test_models_that_do_not_fit_stop_only_their_own_sets(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"average": AVERAGE})
    factory.change_shape(project.root / "upstream" / "e3", "model.layers.0.mlp.up_proj.weight")
    report = refresh(instance, project.settings())
    assert report.counts["average/merge_plan"].failed == {"e1+e2+e3", "e1+e3", "e2+e3"}
    assert report.counts["average/merge_plan"].rerun == set()
    assert report.counts["average/merged_checkpoint"].rerun == set()
    assert any("up_proj" in failure for failure in report.failures)
    factory.write_weights(
        project.root / "upstream" / "e3",
        factory.expert_tensors(factory.base_tensors(project.shape), seed=9),
    )
    fixed = rerun(run(project, instance))
    sets = {"e1+e2+e3", "e1+e3", "e2+e3"}
    assert fixed["average/merged_checkpoint"] == {f"default|{each}" for each in sets}


def test_another_vocabulary_is_merged_by_a_recipe_that_says_how(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Another vocabulary stops no plan; the recipe without a policy stops at its own merges."""
    union = {**TASK_ARITHMETIC, "tokenizer": {"source": "union"}}
    project = make_project(tmp_path, {"average": AVERAGE, "union": union}, experts=2)
    rows = replace(project.shape, vocabulary=project.shape.vocabulary + 8)
    e2 = factory.write_checkpoint(tmp_path / "upstream" / "e2", factory.base_tensors(rows), rows)
    factory.write_tokenizer(e2, added=["茯苓"], moved=3)
    report = refresh(instance, project.settings())
    counts = report.counts
    assert counts["average/merge_plan"].rerun == counts["union/merge_plan"].rerun == {"e1+e2"}
    assert counts["average/merged_checkpoint"].failed == {"default|e1+e2"}
    points = {"lambda=0.5|e1+e2", "lambda=1.0|e1+e2"}
    assert counts["union/merged_checkpoint"].rerun == points
    assert counts["union/scores"].rerun == points
    assert any("tokenizer: {source: union}" in failure for failure in report.failures)
    metadata = materialization_metadata(instance, "average/merge_plan", "e1+e2")
    assert "e2 has another vocabulary" in str(metadata["warnings"])
    project.write_recipe("average", {**AVERAGE, "tokenizer": {"source": "e2"}})
    fixed = rerun(run(project, instance))
    assert fixed["average/merged_checkpoint"] == {"default|e1+e2"}
    assert "union/merged_checkpoint" not in fixed


def test_a_missing_upstream_model_is_reported_and_the_others_are_merged(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE})
    (tmp_path / "upstream" / "e3").rename(tmp_path / "elsewhere")
    report = refresh(instance, project.settings())
    assert len(report.failures) == 1
    assert report.failures[0].startswith("upstream model 'e3': ")
    assert report.counts["average/merged_checkpoint"].rerun == {"default|e1+e2"}
    assert report.counts["leaderboard"].rerun == {None}
    (tmp_path / "elsewhere").rename(tmp_path / "upstream" / "e3")
    complete = rerun(run(project, instance))
    sets = {"e1+e2+e3", "e1+e3", "e2+e3"}
    assert complete["average/merged_checkpoint"] == {f"default|{each}" for each in sets}
    assert complete["model"] == {"e3"}


WRITTEN = {**TASK_ARITHMETIC, "keep": "all"}


def spoil(store: ArtifactStore, asset: str, partition: str) -> Path:
    """Overwrite the last weights of a published checkpoint; returns the file."""
    artifact = store.resolve(asset, partition)
    assert artifact is not None
    file = artifact.folder() / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-64:] = b"\xff" * 64  # NaN in any float format
    file.chmod(0o644)
    file.write_bytes(data)
    return file


def test_a_spoiled_checkpoint_stops_what_comes_after_it_and_nothing_else(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project = brought_up.tiny(instance, {"task_arithmetic": WRITTEN}, experts=2)
    store = ArtifactStore.open(project.store)
    spoil(store, "task_arithmetic/merged_checkpoint", "lambda=0.5|e1+e2")

    with dg.DagsterInstance.ephemeral() as another:
        report = refresh(another, project.settings())
        counts = report.counts
        assert counts["task_arithmetic/scores"].rerun == {"lambda=1.0|e1+e2"}
        assert counts["task_arithmetic/scores"].failed == set()
        (failure,) = report.failures
        assert failure.startswith("task_arithmetic/merged_checkpoint [lambda=0.5|e1+e2]: check ")
        assert "has other bytes than were published" in failure
        assert "`ronghe verify --repair` sets it aside" in failure


@pytest.mark.parametrize("keys", [["lambda=0.5|e1+e2"], ["lambda=0.5|e1+e2", "lambda=1.0|e1+e2"]])
def test_the_check_blocks_in_the_run_that_merges_too(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance, keys: list[str]
) -> None:
    project = brought_up.tiny(instance, {"task_arithmetic": WRITTEN}, experts=2)
    spoil(ArtifactStore.open(project.store), "task_arithmetic/merged_checkpoint", keys[0])
    job = build_definitions(project.settings()).resolve_implicit_global_asset_job_def()
    merged = dg.AssetKey(["task_arithmetic", "merged_checkpoint"])
    scores = dg.AssetKey(["task_arithmetic", "scores"])
    span = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[merged, scores],
        partition_key=keys[0] if len(keys) == 1 else None,
        tags={} if len(keys) == 1 else span,
        raise_on_error=False,
    )
    assert not result.success
    made = {event.asset_key for event in result.all_events if event.is_step_materialization}
    assert made == {merged}


@pytest.mark.parametrize("keys", [["default|e1+e3"], ["default|e1+e2", "default|e1+e2+e3"]])
def test_scores_follow_a_merge_run_as_a_range(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance, keys: list[str]
) -> None:
    """The daemon's backfills run ranges, even of one partition; each must get its own check."""
    project = brought_up.tiny(instance, {"average": AVERAGE})
    project.write_recipe("average", {**AVERAGE, "dtype": "float16"})
    definitions = build_definitions(project.settings())
    merged = dg.AssetKey(["average", "merged_checkpoint"])
    cursor = dg.evaluate_automation_conditions(definitions, instance=instance).cursor
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[merged],
        tags={
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        },
    )
    assert result.success
    asked = dg.evaluate_automation_conditions(definitions, instance=instance, cursor=cursor)
    scores = dg.AssetKey(["average", "scores"])
    assert asked.get_requested_partitions(scores) == set(keys)

"""Recipes of several documents in a catalog: a chain of assets, run exactly as far as touched."""

import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.catalogs import load_catalog
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import RefreshReport, refresh
from resources.store.artifact_store import ArtifactStore
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.brought_up import ProjectsBroughtUp
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project

MEAN = {
    "name": "mean",
    "merge_method": "linear",
    "experts": [["e1", "e2"], ["e2", "e3"]],
    "parameters": {"weight": 1.0},
    "dtype": "float32",
}
WARM = {
    "name": "warm",
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": "e1"}],
    "parameters": {"weight": 0.5},
    "dtype": "float32",
}
MIX = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [
        {"model": "mean", "parameters": {"weight": 0.5}},
        {"model": "warm", "parameters": {"weight": 0.25}},
    ],
    "sweep": {"lambda": [0.5, 1.0]},
    "dtype": "float32",
}
PAIRS = ("e1+e2", "e2+e3")
MEAN_STEP, WARM_STEP = "mix/step/mean", "mix/step/warm"
RESULT = "mix/merged_checkpoint"
SITE = "catalog_site"


def write_documents(project: TinyProject, *documents: Mapping[str, object]) -> None:
    path = project.catalog / "recipes" / "mix.yaml"
    path.write_text(yaml.safe_dump_all([dict(each) for each in documents]), encoding="utf-8")


def make(root: Path) -> TinyProject:
    made = make_project(root, {})
    write_documents(made, MEAN, WARM, MIX)
    return made


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return make(tmp_path)


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(name.split("/"))


def points(*sets: str) -> set[str]:
    return {f"lambda={value}|{each}" for value in (0.5, 1.0) for each in sets}


def run(project: TinyProject, instance: dg.DagsterInstance) -> dict[str, set[str | None]]:
    """A refresh that must succeed: what it materialized, by asset."""
    report = refresh(instance, project.settings())
    assert report.failures == []
    return rerun(report)


def rerun(report: RefreshReport) -> dict[str, set[str | None]]:
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def test_steps_are_assets_between_the_plans_and_the_result(project: TinyProject) -> None:
    definitions = build_definitions(project.settings())
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    parents = {name: graph.get(key(name)).parent_keys for name in (MEAN_STEP, WARM_STEP, RESULT)}
    assert parents == {
        MEAN_STEP: {key("mix/merge_plan")},
        WARM_STEP: {key("model")},
        RESULT: {key(MEAN_STEP), key(WARM_STEP)},
    }
    sets = graph.get(key(MEAN_STEP)).partitions_def
    assert sets is not None
    assert tuple(sets.get_partition_keys()) == PAIRS
    assert graph.get(key(WARM_STEP)).partitions_def is None
    for name in (MEAN_STEP, WARM_STEP, RESULT):
        assert graph.get(key(name)).group_name == "mix"
        checks = {check.name for check in graph.get_check_keys_for_assets({key(name)})}
        assert checks == {"checkpoint_is_sound", "rests_on_nothing_withdrawn"}


def test_only_the_steps_and_sets_that_a_change_touches_run(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    project, report = brought_up.get(instance, "mix", make)
    first = rerun(report)
    assert (first[MEAN_STEP], first[WARM_STEP]) == (set(PAIRS), {None})
    assert first[RESULT] == points(*PAIRS)
    assert run(project, instance) == {}

    project.retrain("e3", seed=77)
    assert run(project, instance) == {
        "model": {"e3"},
        "task_vector": {"e3"},
        "mix/merge_plan": {"e2+e3"},
        MEAN_STEP: {"e2+e3"},
        RESULT: points("e2+e3"),
        SITE: {None},
    }
    project.retrain("e1", seed=78)  # by `warm` it is in every result
    changed = run(project, instance)
    assert (changed[MEAN_STEP], changed[WARM_STEP]) == ({"e1+e2"}, {None})
    assert changed[RESULT] == points(*PAIRS)

    write_documents(project, MEAN, {**WARM, "parameters": {"weight": 0.75}}, MIX)
    assert run(project, instance) == {WARM_STEP: {None}, RESULT: points(*PAIRS), SITE: {None}}


def test_the_result_is_what_ronghe_merge_makes_and_damaged_steps_stop_it(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project, _ = brought_up.get(instance, "mix", make)
    store = ArtifactStore.open(project.store)
    pair = [{"model": "e1", "parameters": {"weight": 1.0}}, {"model": "e2"}]
    mean = {name: value for name, value in MEAN.items() if name != "experts"} | {"models": pair}
    config = project.root / "upstream" / "mix.yaml"
    config.write_text(yaml.safe_dump_all([mean, WARM, MIX]), encoding="utf-8")
    done = ronghe("merge", "mix.yaml", tmp_path / "out", folder=config.parent)
    assert done.returncode == 0, done.stderr
    for value in (0.5, 1.0):
        artifact = store.resolve(RESULT, f"lambda={value}|e1+e2")
        assert artifact is not None
        folder = tmp_path / "out" / f"lambda={value}"
        for file in set(artifact.files) - {"README.md"}:  # the store's says no names
            assert (folder / file).read_bytes() == artifact.read_bytes(file), file

    before = store.digests("checkpoint")
    for step, partition in ((MEAN_STEP, "e1+e2"), (WARM_STEP, None)):
        artifact = store.resolve(step, partition)
        assert artifact is not None
        file = artifact.folder() / "model.safetensors"
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:-64] + b"\xff" * 64)
    with dg.DagsterInstance.ephemeral() as another:  # knows nothing, so it materializes all again
        report = refresh(another, project.settings())
    steps = (f"{MEAN_STEP} [e1+e2]", WARM_STEP)
    for failure, where in zip(sorted(report.failures), steps, strict=True):
        assert failure.startswith(f"{where}: check checkpoint_is_sound failed: ")
        assert "has other bytes than were published" in failure
    assert report.counts[RESULT].rerun == set()
    assert store.digests("checkpoint") == before


def test_a_step_that_fails_stops_what_uses_it_and_is_in_the_summary(
    project: TinyProject, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "upstream" / "e1" / "model.safetensors"
    sound, tensors = file.read_bytes(), factory.read_tensors(file.parent)
    tensors["model.norm.weight"][3] = float("nan")
    factory.write_weights(file.parent, tensors)
    report = refresh(instance, project.settings())
    assert report.counts[WARM_STEP].failed == {None}
    assert report.counts[MEAN_STEP].rerun == {"e2+e3"}
    assert report.counts[RESULT].rerun == set()
    assert any(f.startswith(f"{WARM_STEP}: NonFiniteError") for f in report.failures)
    file.write_bytes(sound)
    assert run(project, instance)[RESULT] == points(*PAIRS)


def test_a_result_never_uses_a_step_of_other_models(
    project: TinyProject, instance: dg.DagsterInstance
) -> None:
    """Run without its steps, it makes those that it needs."""
    job = build_definitions(project.settings()).resolve_implicit_global_asset_job_def()
    store, inputs = ArtifactStore.open(project.store), list[dict[str, str]]()
    for models in (("base", "e1", "e2"), ("e2",)):
        project.retrain("e2", seed=50 + len(inputs))
        for asset, partition in (
            *(("model", each) for each in models),
            (RESULT, "lambda=1.0|e1+e2"),
        ):
            assert job.execute_in_process(
                instance=instance, asset_selection=[key(asset)], partition_key=partition
            ).success
        ref = store.ref(RESULT, "lambda=1.0|e1+e2")
        assert ref is not None
        inputs.append(ref.fields["models"])
    assert inputs[0]["mean"] != inputs[1]["mean"]
    assert inputs[0]["warm"] == inputs[1]["warm"]
    mean = store.get("checkpoint", inputs[1]["mean"])
    experts = [store.ref("model", name) for name in ("e1", "e2")]
    assert mean.manifest["inputs"] == sorted(str(ref and ref.digest) for ref in experts)


def without(document: Mapping[str, object], *keys: str) -> dict[str, object]:
    return {name: value for name, value in document.items() if name not in keys}


@pytest.mark.parametrize(
    ("documents", "match"),
    [
        (
            (without(MEAN, "experts") | {"models": [{"model": "e1"}]}, WARM, MIX),
            r"mix.yaml: experts is missing in every document; allowed: all-pairs",
        ),
        (
            (MEAN, WARM, MIX | {"experts": "all"}),
            r"experts must ask for the same sets in every document that has it; mean gives"
            r" e1\+e2, e2\+e3; mix gives e1\+e2\+e3",
        ),
        (
            (MEAN | {"suite": "colours", "gate": {"allowed_loss": 0.1}}, WARM, MIX),
            r"(?s)document mean: suite has no effect.*document mean: gate has no effect",
        ),
        (
            (MEAN | {"sweep": {"normalize": [True]}}, WARM, MIX),
            "document mean: sweep makes several",
        ),
        (
            (MEAN, WARM | {"models": [{"model": "e9"}]}, MIX),
            r"document warm: models\[0\].model is 'e9', which is neither 'base' nor an expert of it"
            r" nor a document\.",
        ),
        (
            (MEAN | {"name": "e1"}, WARM, MIX | {"models": [{"model": "e1"}, {"model": "warm"}]}),
            r"document e1: name is the name of a model of the catalog",
        ),
        (
            (MEAN | {"name": "a-b"}, WARM, MIX | {"models": [{"model": "a-b"}, {"model": "warm"}]}),
            r"document a-b: name may hold letters, digits and '_'",
        ),
        ((MEAN, WARM, MIX | {"name": "other"}), r"mix.yaml: name is 'other'; what a file of the"),
        (
            (MEAN | {"base_model": "warm"}, WARM, MIX),
            r"document mean: base_model is the result of another document, but linear with",
        ),
        ((MEAN | {"base_model": "bse"}, WARM, MIX), r"document mean: base_model is 'bse', which"),
    ],
)
def test_documents_that_do_not_go_together(
    project: TinyProject, documents: tuple[Mapping[str, object], ...], match: str
) -> None:
    write_documents(project, *documents)
    part = load_catalog(project.catalog).broken["recipe mix"]
    assert re.search(match, str(part)), str(part)


def test_faults_of_all_documents_come_at_once(project: TinyProject) -> None:
    write_documents(
        project, MEAN | {"dtpye": "float32"}, WARM | {"merge_method": "task_aritmetic"}, MIX
    )
    told = str(load_catalog(project.catalog).broken["recipe mix"])
    assert "recipes/mix.yaml: document 1, mean: dtpye is no key" in told
    assert "recipes/mix.yaml: document 2, warm: merge_method: no merge method" in told


def test_a_result_may_take_the_experts_and_name_models_too(
    project: TinyProject, instance: dg.DagsterInstance
) -> None:
    both = [{"model": "warm"}, {"model": "e3"}]
    average = {**AVERAGE, "experts": [["e1"], ["e2"]], "models": both, "suite": None}
    write_documents(project, WARM, average)
    graph = build_definitions(project.settings()).resolve_asset_graph()
    parents = {key("mix/merge_plan"), key(WARM_STEP), key("model")}
    assert graph.get(key(RESULT)).parent_keys == parents
    run(project, instance)
    project.retrain("e2", seed=6)
    changed = run(project, instance)
    assert (changed[RESULT], WARM_STEP in changed) == ({"default|e2"}, False)
    project.retrain("e3", seed=8)
    changed = run(project, instance)
    assert (changed[RESULT], WARM_STEP in changed) == ({"default|e1", "default|e2"}, False)


def test_an_arc_goes_from_the_one_expert_of_a_set_to_a_step(project: TinyProject) -> None:
    arc = {"merge_method": "slerp", "experts": [["e1"], ["e2"]], "models": [{"model": "warm"}]}
    write_documents(project, WARM, arc | {"parameters": {"t": 0.5}})
    catalog = load_catalog(project.catalog)
    assert catalog.sets == ("e1", "e2")
    last = catalog.files["mix"].for_experts(["e2"], "base").result
    assert (last.base_model, last.merged_models) == ("e2", ("warm", "e2"))

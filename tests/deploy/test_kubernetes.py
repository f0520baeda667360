"""deploy/kubernetes: what the chart renders is a valid instance, and a merge's pod gets its GPU.

No cluster is needed: Dagster checks its own configuration and builds the pods here.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config
from dagster_postgres.utils import pg_config, pg_url_from_config

from module_moves import moved_name
from orchestration.definitions import build_definitions
from orchestration.settings import Settings, load_settings
from tests.deploy.chart import Values, code_server, instance_yaml, take_image
from tests.merges.merging import ROOT
from tests.packaging.conftest import FILES, PACKAGES

FOLDER = ROOT / "deploy" / "kubernetes"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def instance(written: dict[str, Any]) -> dict[str, Any]:
    return instance_yaml(Values(written))


@pytest.fixture(scope="module")
def deployment(written: dict[str, Any]) -> dict[str, Any]:
    (only,) = written["dagster-user-deployments"]["deployments"]
    return only


@pytest.fixture(scope="module")
def settings(deployment: dict[str, Any]) -> Settings:
    return load_settings({**deployment["env"], "RONGHE_CATALOG": str(ROOT / "catalog")})


def test_every_value_is_read_by_a_template(written: dict[str, Any]) -> None:
    values = Values(written)
    instance_yaml(values)
    images = {take_image(values, path) for path in ("dagsterWebserver", "dagsterDaemon")}
    image = written["dagster-user-deployments"]["deployments"][0]["image"]
    assert images == {f"{image['repository']}:{image['tag']}"}
    assert values.untaken() == {
        "dagster-user-deployments.enabled", "dagster-user-deployments.deployments",
        "dagsterWebserver.service.type", "dagsterWebserver.service.port",
    }  # fmt: skip


def test_dagster_accepts_the_instance(instance: dict[str, Any]) -> None:
    checked = process_config(dagster_instance_config_schema(), instance)
    assert checked.success, checked.errors
    launcher = process_config(K8sRunLauncher.config_type(), instance["run_launcher"]["config"])
    assert launcher.success, launcher.errors
    assert instance["run_retries"]["retry_on_asset_or_op_failure"] is False


def test_the_database_is_reached_by_the_installed_driver(
    instance: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "from-the-secret")
    for storage in ("run_storage", "event_log_storage", "schedule_storage"):
        checked = process_config(pg_config(), instance[storage]["config"])
        assert checked.success, checked.errors
        assert checked.value is not None
        engine = sqlalchemy.create_engine(pg_url_from_config(checked.value))
        assert engine.driver == "psycopg2"
        assert engine.url.password == "from-the-secret"


def test_team_and_kubernetes_say_the_same(instance: dict[str, Any]) -> None:
    team = yaml.safe_load((ROOT / "deploy" / "team" / "dagster.yaml").read_text(encoding="utf-8"))
    assert instance["run_retries"] == team["run_retries"]
    assert instance["retention"] == team["retention"]
    assert instance["concurrency"]["pools"] == team["concurrency"]["pools"]
    name = "free_slots_after_run_end_seconds"
    assert instance["run_monitoring"][name] == team["run_monitoring"][name]


def pod_of(
    asset: str,
    settings: Settings,
    instance: dict[str, Any],
    deployment: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """The pod of one asset's step, as the executor puts it together."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(KUBECONFIG), encoding="utf-8")
    outside = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    launcher = K8sRunLauncher.from_config_value(
        None, {**instance["run_launcher"]["config"], **outside}
    )
    graph = build_definitions(settings).resolve_asset_graph()
    tags = graph.assets_def_for_key(dg.AssetKey.from_user_string(asset)).op.tags
    run = dg.DagsterRun(job_name="__ASSET_JOB")
    context = (
        K8sContainerContext.create_for_run(run, launcher, include_run_tags=False)
        .merge(K8sContainerContext.create_from_config({"k8s": code_server(deployment)}))
        .merge(K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(tags)))
    )
    config = context.get_k8s_job_config("registry.example.org/ronghe:0.1.0", launcher)
    user = context.run_k8s_config
    job = construct_dagster_k8s_job(config, ["dagster"], "step", user_defined_k8s_config=user)
    return job.to_dict()["spec"]["template"]["spec"]


def test_the_pod_of_a_merge_asks_for_a_gpu_and_that_of_a_model_does_not(
    settings: Settings, instance: dict[str, Any], deployment: dict[str, Any], tmp_path: Path
) -> None:
    merge = pod_of("ties/merged_checkpoint", settings, instance, deployment, tmp_path)
    (container,) = merge["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    (toleration,) = merge["tolerations"]
    assert (toleration["key"], toleration["operator"]) == ("nvidia.com/gpu", "Exists")
    sources = [each["secret_ref"]["name"] for each in container["env_from"] if each["secret_ref"]]
    assert sources == ["ronghe-s3"]
    password = next(each for each in container["env"] if each["name"] == "DAGSTER_PG_PASSWORD")
    assert password["value_from"]["secret_key_ref"] == {
        "key": "postgresql-password", "name": "ronghe-postgres", "optional": None,
    }  # fmt: skip

    model = pod_of("model", settings, instance, deployment, tmp_path)
    assert not (model["containers"][0]["resources"] or {}).get("limits")


def test_steps_are_pods(settings: Settings) -> None:
    """Tags of an op reach the pod of a step, never that of a run."""
    executor = build_definitions(settings).executor
    assert isinstance(executor, dg.ExecutorDefinition)
    assert executor.name == "k8s"


def test_no_secret_is_written_down(written: dict[str, Any], deployment: dict[str, Any]) -> None:
    assert "postgresqlPassword" not in written["postgresql"]
    assert not [name for name in deployment["env"] if re.search("KEY|SECRET|PASSWORD", name)]


def test_the_image_holds_every_package(written: dict[str, Any]) -> None:
    """What is installed in the image is what the project is made of, with the extras needed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    for package in PACKAGES:
        assert f"COPY {package} {package}\n" in text
    assert f"COPY {' '.join(FILES)} ./\n" in text
    (extras,) = re.findall(r"'\.\[([a-z,]+)\]'", text)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    assert {"team", "kubernetes"} <= set(extras.split(","))
    (deployment,) = written["dagster-user-deployments"]["deployments"]
    assert deployment["env"]["RONGHE_CATALOG"] in text
    # The image holds a wheel, so the code location has its name there.
    assert deployment["codeServerArgs"] == [
        "--module-name",
        moved_name(build_definitions.__module__),
    ]

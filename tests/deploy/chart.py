"""What Dagster's Helm chart makes of our values: its dagster.yaml, and the code server's context.

Written after the chart's templates (configmap-instance.yaml and the helpers it includes, the user
deployments' context). Each value is taken once, so that `untaken` names those no template reads.
"""

from collections.abc import Iterator
from typing import Any

RELEASE, NAMESPACE = "ronghe-dagster", "merging"


class Values:
    """A values file, and which of its leaves were taken."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._leaves = dict(_leaves(values, ""))

    def take(self, path: str) -> Any:
        """The leaf at a dotted path, or KeyError."""
        return self._leaves.pop(path)

    def take_tree(self, path: str) -> Any:
        """The dict of leaves below a path that a template prints as it is."""
        inside = {name for name in self._leaves if name.startswith(f"{path}.")}
        tree: dict[str, Any] = {}
        for name in sorted(inside):
            *folders, last = name.removeprefix(f"{path}.").split(".")
            place = tree
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = self._leaves.pop(name)
        return tree

    def untaken(self) -> set[str]:
        """Paths of the leaves that nothing asked for."""
        return set(self._leaves)


def _leaves(value: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, dict) and each:
            yield from _leaves(each, f"{path}{name}.")
        else:
            yield path + name, each


def take_image(values: Values, path: str) -> str:
    """The image that a deployment of the chart runs."""
    assert values.take(f"{path}.image.pullPolicy") in ("Always", "IfNotPresent", "Never")
    return f"{values.take(f'{path}.image.repository')}:{values.take(f'{path}.image.tag')}"


def instance_yaml(values: Values) -> dict[str, Any]:
    """The dagster.yaml that daemon, webserver and runs get."""
    assert values.take("generatePostgresqlPasswordSecret") is False
    assert values.take("postgresql.enabled") is False
    secret = values.take("global.postgresqlSecretName")
    database = {
        "username": values.take("postgresql.postgresqlUsername"),
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": values.take("postgresql.postgresqlHost"),
        "db_name": values.take("postgresql.postgresqlDatabase"),
        "port": values.take("postgresql.service.port"),
        "params": {},
        "scheme": values.take("postgresql.postgresqlScheme"),
    }
    storages = {
        name: {"module": f"dagster_postgres.{module}", "class": kind, "config": {
            "postgres_db": database}}
        for name, module, kind in (
            ("schedule_storage", "schedule_storage", "PostgresScheduleStorage"),
            ("run_storage", "run_storage", "PostgresRunStorage"),
            ("event_log_storage", "event_log", "PostgresEventLogStorage"),
        )
    }  # fmt: skip
    return {
        **storages,
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        "run_launcher": _run_launcher(values, secret),
        "run_coordinator": _run_coordinator(values),
        "concurrency": _concurrency(values),
        "compute_logs": {
            "module": "dagster.core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "run_monitoring": _run_monitoring(values),
        **_run_retries(values),
        "telemetry": {"enabled": values.take("telemetry.enabled")},
        **values.take_tree("additionalInstanceConfig"),
    }


def _run_launcher(values: Values, secret: str) -> dict[str, Any]:
    assert values.take("runLauncher.type") == "K8sRunLauncher"
    path = "runLauncher.config.k8sRunLauncher"
    return {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "load_incluster_config": True,
            "job_namespace": NAMESPACE,
            "image_pull_policy": values.take(f"{path}.imagePullPolicy"),
            "service_account_name": RELEASE,
            "dagster_home": "/opt/dagster/dagster_home",
            "instance_config_map": f"{RELEASE}-instance",
            "postgres_password_secret": secret,
            "fail_pod_on_run_failure": values.take(f"{path}.failPodOnRunFailure"),
            "run_k8s_config": {"pod_spec_config": values.take_tree(
                f"{path}.runK8sConfig.podSpecConfig")},
        },
    }  # fmt: skip


def _run_coordinator(values: Values) -> dict[str, Any]:
    path = "dagsterDaemon.runCoordinator"
    assert values.take(f"{path}.enabled") is True
    assert values.take(f"{path}.type") == "QueuedRunCoordinator"
    most = values.take(f"{path}.config.queuedRunCoordinator.maxConcurrentRuns")
    assert most is None, "the chart refuses it beside concurrency.runs.maxConcurrentRuns"
    return {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}


def _concurrency(values: Values) -> dict[str, Any]:
    assert values.take("concurrency.enabled") is True
    return {
        "pools": {
            "default_limit": values.take("concurrency.pools.defaultLimit"),
            "granularity": values.take("concurrency.pools.granularity"),
        },
        "runs": {"max_concurrent_runs": values.take("concurrency.runs.maxConcurrentRuns")},
    }


def _run_monitoring(values: Values) -> dict[str, Any]:
    path = "dagsterDaemon.runMonitoring"
    return {
        "enabled": values.take(f"{path}.enabled"),
        "start_timeout_seconds": values.take(f"{path}.startTimeoutSeconds"),
        "max_resume_run_attempts": values.take(f"{path}.maxResumeRunAttempts"),
        "poll_interval_seconds": values.take(f"{path}.pollIntervalSeconds"),
        "free_slots_after_run_end_seconds": values.take(f"{path}.freeSlotsAfterRunEndSeconds"),
    }


def _run_retries(values: Values) -> dict[str, Any]:
    enabled = values.take("dagsterDaemon.runRetries.enabled")
    return {"run_retries": {"enabled": True}} if enabled else {}


def code_server(deployment: dict[str, Any]) -> dict[str, Any]:
    """The context of one user deployment, which its runs and their steps inherit."""
    expected = {"name", "image", "codeServerArgs", "port", "includeConfigInLaunchedRuns"}
    assert set(deployment) == expected | {"env", "envSecrets"}
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    return {
        "image_pull_policy": deployment["image"]["pullPolicy"],
        "env_config_maps": [f"{RELEASE}-{deployment['name']}-user-env"],
        "env_secrets": [each["name"] for each in deployment["envSecrets"]],
        "namespace": NAMESPACE,
        "service_account_name": f"{RELEASE}-user-deployments",
    }

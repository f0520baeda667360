"""Where the steps of a run are executed."""

import dagster as dg

from orchestration.settings import Settings


def step_executor(settings: Settings) -> dg.ExecutorDefinition:
    """Choose a Ray cluster when the settings name one, pods when they say so, else processes.

    The processes are forked from a server that has imported the definitions once, which halves the
    start of a step. Ray's client is imported only here and only then; each step is a job of Ray's,
    with this process's settings, so that a node cannot fall back to a store of its own. Credentials
    are not sent: Ray shows a job's environment to everybody, and the nodes have their own.

    On Kubernetes a step gets the GPUs that its op tags ask for only as a pod of its own; they
    do not reach the pod of a run.

    Raises ModuleNotFoundError when Ray or pods are asked for and `ronghe[ray]` or
    `ronghe[kubernetes]` is not installed.
    """
    if settings.pods:
        from dagster_k8s import k8s_job_executor  # pyright: ignore[reportMissingImports]

        return k8s_job_executor
    if settings.ray is None:
        preload = {"preload_modules": ["orchestration.definitions"]}
        return dg.multiprocess_executor.configured(
            {"start_method": {"forkserver": preload}, "max_concurrent": 2}
        )
    from dagster_ray import ray_executor  # pyright: ignore[reportMissingImports]

    variables = [f"{name}={value}" for name, value in settings.as_environment().items()]
    return ray_executor.configured({"ray": {"address": settings.ray, "env_vars": variables}})


def looking_executor(settings: Settings) -> dg.ExecutorDefinition | None:
    """Choose where a look at upstream models runs: in its run's own process; None with a cluster.

    It is one small step every few minutes. A process of its own would import everything again,
    several seconds of CPU time for what takes milliseconds. With Ray or pods it stays a job or a
    pod, as None says: models may lie where those can see them.
    """
    return None if settings.ray is not None or settings.pods else dg.in_process_executor

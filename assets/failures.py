"""Errors of ours as Dagster failures: one clear message, and a retry only where it can help."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from merge_ops.errors import RongheError, shown

RETRY_CRASHES = dg.RetryPolicy(max_retries=2, delay=5)
"""For steps that a lost process or an unreachable store may interrupt."""


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn our own errors into `dg.Failure`s that are not retried: the same input fails again.

    A store that cannot be reached, also where a library only met it while it read a checkpoint, and
    whatever is not ours, is left to the retry policy.
    """
    from eval_ops.errors import EvalError
    from resources.errors import ResourceError, StoreFailureError, StoreUnreachableError

    try:
        yield
    except (RongheError, EvalError, ResourceError) as error:
        if any(isinstance(e, StoreFailureError | StoreUnreachableError) for e in _causes(error)):
            raise
        message = shown(f"{type(error).__name__}: {error}", lines=True)
        raise dg.Failure(description=message, allow_retries=False) from error


def stop_if_run_is_over(context: dg.AssetExecutionContext) -> None:
    """Raise `dg.Failure` when the step's run has ended without it.

    A step can outlive its run worker, and Dagster then starts another run. What the step pointed to
    or reported now would replace what that run made, and its checks; what it published stays.
    """
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and run.is_finished:
        raise dg.Failure(
            description=f"run {run.run_id} ended ({run.status.value}) while this step went on; what"
            " it made is in the store and is not merged again, but the names stay as they are",
            allow_retries=False,
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__

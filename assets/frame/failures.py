"""Errors of ours as Dagster failures: one clear message, and a retry only where it can help."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from merge_ops.errors import RongheError, shown

RETRY_CRASHES = dg.RetryPolicy(max_retries=2, delay=5)
"""For steps that a lost process or an unreachable store may interrupt."""

MORE_ROOM = (
    "Set RONGHE_MEMORY to what a merge may take, or RONGHE_THREADS lower, or give the step more"
)


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn our own errors into `dg.Failure`s that are not retried: the same input fails again.

    A store that cannot be reached, also where a library only met it while it read a checkpoint, and
    whatever is not ours, is left to the retry policy.
    """
    try:
        yield
    except Exception as error:
        if not is_ours(error) or is_of_the_store(error):
            raise
        raise dg.Failure(description=message_of(error), allow_retries=False) from error


def is_ours(error: BaseException) -> bool:
    """Return whether the same input raises an error again: one of ours, or no memory."""
    from eval_ops.errors import EvalError
    from resources.errors import ResourceError

    return isinstance(error, RongheError | EvalError | ResourceError) or is_out_of_memory(error)


def is_of_the_store(error: BaseException) -> bool:
    """Return whether an error comes from a store that failed or cannot be reached."""
    from resources.errors import StoreFailureError, StoreUnreachableError

    return any(isinstance(e, StoreFailureError | StoreUnreachableError) for e in causes(error))


def message_of(error: BaseException) -> str:
    """Return what a person is told of an error."""
    told = shown(f"{type(error).__name__}: {error}", lines=True)
    return f"out of memory ({told}). {MORE_ROOM}" if is_out_of_memory(error) else told


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was not there: Python's, a GPU's, or torch's on a CPU, by its text."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


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


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, the one it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__

"""Failures that pass: a store or an endpoint does not answer, or files changed while being read.

The run gets a tag, and the daemon tries it again later (orchestration/trying_again.py).
"""

import functools
from collections.abc import Callable
from typing import Any

import dagster as dg

from assets.frame.failures import causes, is_of_the_store

_Body = Callable[..., dg.MaterializeResult]

MAY_PASS = "ronghe/may_pass"
"""Tag of a run that failed of what may be otherwise the next time, with the same inputs."""


def may_pass(error: BaseException) -> bool:
    """Return whether the same step may succeed another time."""
    from resources.errors import (
        EndpointError,
        RequestFailedError,
        SourceChangedError,
        StoreAddressError,
    )

    passing = EndpointError | RequestFailedError | SourceChangedError | StoreAddressError
    return is_of_the_store(error) or any(isinstance(each, passing) for each in causes(error))


def note_passing(context: Any) -> None:
    """Say of a step's run that it may succeed another time."""
    context.instance.add_run_tags(context.run.run_id, {MAY_PASS: "true"})


def noted_passing(body: _Body) -> _Body:
    """Wrap what an asset does, so that a failure that passes is noted of its run."""

    @functools.wraps(body)
    def noting(*given: Any, **named: Any) -> dg.MaterializeResult:
        try:
            return body(*given, **named)
        except Exception as error:
            if may_pass(error):
                note_passing(dg.AssetExecutionContext.get())  # not every body takes it
            raise

    return noting

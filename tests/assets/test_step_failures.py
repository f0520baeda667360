"""What a person is told of a failed step's error, out of the chain that Dagster keeps of it."""

import errno
import itertools
import os
import sys

import pytest
from dagster._utils.error import serializable_error_info_from_exc_info

from assets.step_failures import told_of
from resources.errors import StoreFailureError


def serialized(*chain: Exception):
    """The first error, caused by the second, and so on, as Dagster keeps it of a step."""
    for error, cause in itertools.pairwise(chain):
        error.__cause__ = cause
    try:
        raise chain[0]
    except Exception:
        return serializable_error_info_from_exc_info(sys.exc_info())


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("chain", "told"),
    [
        ([RuntimeError("of a step"), StoreFailureError("store X is full"), FULL],
         "resources.errors.StoreFailureError: store X is full"),
        ([RuntimeError("of a step"), FULL], f"OSError: {FULL}"),
        ([StoreFailureError("store X is full")], "resources.errors.StoreFailureError: store X"),
    ],
)  # fmt: skip
def test_ours_is_told_and_not_what_caused_it(chain, told):
    assert told_of(serialized(*chain)).startswith(told)


def test_no_error_at_all():
    assert told_of(None) == "unknown error"

"""Here limited children are started as users start them: they are what is tested."""

from collections.abc import Iterator

import pytest

from tests.child_forks import started_children


@pytest.fixture(scope="module", autouse=True)
def _started_children() -> Iterator[None]:
    with started_children():
        yield

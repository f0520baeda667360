"""Fixtures of the tests of merge_ops."""

import pytest

from tests import arithmetics


@pytest.fixture(scope="module", params=sorted(arithmetics.ARITHMETICS))
def arithmetic(request: pytest.FixtureRequest):
    """Both arithmetics, one after the other; tests/method_settings.py applies methods with it."""
    with arithmetics.using(request.param) as chosen:
        yield chosen

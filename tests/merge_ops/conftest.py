"""Fixtures of the tests of merge_ops."""

import pytest

from tests.merges import arithmetics


@pytest.fixture(scope="module", params=sorted(arithmetics.ARITHMETICS))
def arithmetic(request: pytest.FixtureRequest):
    """Both arithmetics, one after the other; tests/merges/method_settings.py applies methods with
    it.
    """
    with arithmetics.using(request.param) as chosen:
        yield chosen

"""What tests of verdicts share."""

from pathlib import Path

import pytest

from tests.models import checkpoint_factory as factory
from tests.models.verdict_folders import SHAPE


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound model in one file."""
    return factory.write_family(tmp_path, SHAPE, experts=0).base

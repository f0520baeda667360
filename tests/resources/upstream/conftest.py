"""What tests of several kinds of upstream models share."""

from pathlib import Path

import pytest

from tests.resources.upstream_models import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, just written."""
    made = tmp_path / "catalog" / "模型 a"
    write_model(made)
    return made

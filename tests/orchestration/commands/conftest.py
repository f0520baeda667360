"""Models with names, and a hub that has them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.orchestration.commands.named_models import write_named_models
from tests.resources.hub_server import Hub, running_hub_of


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of the names that mergekit's examples hold."""
    return write_named_models(tmp_path_factory.mktemp("upstream"))


@pytest.fixture
def hub(models: Mapping[str, Path]) -> Iterator[Hub]:
    """A hub that has them."""
    with running_hub_of(models) as running:
        yield running

"""Models with names, and a hub that has them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from assets.work.ranking.ranking import promote, rank
from orchestration.commands.evidence import champion_commands
from orchestration.settings import NAMES
from tests.assets.work.made_up_store import ScoredStore
from tests.orchestration.commands.models.named_models import write_named_models
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


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoredStore:
    """A made-up store with a leaderboard and a champion, which the commands find."""
    made = ScoredStore(tmp_path)
    made.everything({"x=0": 0.7, "x=1": 0.9})
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RONGHE_STORE", made.store.uri)
    monkeypatch.setenv("RONGHE_CATALOG_NAME", "team")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setattr(champion_commands, "contest_of", lambda _: made.contest)
    rank(made.store, made.contest)
    promote(made.store, made.contest, made.recipe, "cpu", 1)
    return made

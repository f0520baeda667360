"""Fixtures of the orchestration tests: caches stay out of the home folder, instances are fresh."""

import functools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from tests.orchestration.projects.brought_up import ProjectsBroughtUp


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of this test's own, for the caches of pulled artifacts and revisions."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as fresh:
        _keep_open(fresh)
        yield fresh


def _keep_open(instance: dg.DagsterInstance) -> None:
    """Give the events one connection, where Dagster opens one for each; KeptSqliteStorage does so
    for instances on disk."""
    events: Any = instance.event_log_storage
    events._engine = create_engine(
        events._engine.url, poolclass=StaticPool, connect_args={"check_same_thread": False}
    )


@pytest.fixture(scope="session")
def brought_up(tmp_path_factory: pytest.TempPathFactory) -> "ProjectsBroughtUp":
    """Projects that were refreshed once."""
    from tests.orchestration.projects.brought_up import ProjectsBroughtUp

    return ProjectsBroughtUp(tmp_path_factory.mktemp("projects"))


DRAWN: dict[bytes, bytes] = {}
"""Pictures of this process, by what was asked for."""


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Draw each picture once in this process: the models of most of these tests are the same ones.

    A picture of other arguments is another one. It ends with each file: tests of eval_ops, which
    are those of pictures, draw.
    """
    from eval_ops import plots

    with pytest.MonkeyPatch.context() as patch:
        for name in ("layer_norm_plot", "heatmap", "leaderboard_plot"):
            patch.setattr(plots, name, _remembered(getattr(plots, name)))
        yield


def _remembered(draw: Callable[..., bytes]) -> Callable[..., bytes]:
    @functools.wraps(draw)
    def drawn(*given: Any) -> bytes:
        if any(isinstance(each, Iterator) for each in given):
            return draw(*given)
        key = pickle.dumps((draw.__name__, given))
        if key not in DRAWN:
            DRAWN[key] = draw(*given)
        return DRAWN[key]

    return drawn


@pytest.fixture
def ronghe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command line in this process: its status, and what it printed."""
    from orchestration.commands import cli

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["ronghe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())

    return run

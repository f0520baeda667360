"""Fixtures of the orchestration tests: caches stay out of the home folder, instances are fresh."""

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from tests.child_forks import OWNER

if TYPE_CHECKING:
    from tests.orchestration.projects.brought_up import ProjectsBroughtUp

DRAWN = (
    "layer_norm_plot", "heatmap", "leaderboard_plot", "coefficient_plot", "retention_plot",
    "front_plot", "study_plot", "course_plot",
)  # fmt: skip
"""The pictures of `eval_ops.plots` that assets draw."""


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
        yield fresh


@pytest.fixture(scope="module", autouse=True)
def kept_open() -> Iterator[None]:
    """Have every Dagster instance in memory keep its connection."""
    plain = dg.DagsterInstance.ephemeral

    def ephemeral(*given: Any, **named: Any) -> dg.DagsterInstance:
        fresh = plain(*given, **named)
        _keep_open(fresh)
        return fresh

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dg.DagsterInstance, "ephemeral", staticmethod(ephemeral))
        yield


def _keep_open(instance: dg.DagsterInstance) -> None:
    """Give the events one connection, where Dagster opens one for each, and sets it up anew.

    KeptSqliteStorage does so for instances on disk.
    """
    events: Any = instance.event_log_storage
    engine = create_engine(
        events._engine.url, poolclass=StaticPool, connect_args={"check_same_thread": False}
    )

    @contextmanager
    def connect() -> Iterator[Connection]:
        with events._db_lock, engine.connect() as connection, connection.begin():
            yield connection

    events._engine, events._connect = engine, connect


@pytest.fixture(scope="session")
def brought_up(tmp_path_factory: pytest.TempPathFactory) -> "ProjectsBroughtUp":
    """Projects that were refreshed once."""
    from tests.orchestration.projects.brought_up import ProjectsBroughtUp

    return ProjectsBroughtUp(tmp_path_factory.mktemp("projects"))


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Draw each picture once in this run: the models of most of these tests are called the same.

    Pictures of other words, or where other numbers are missing, zero or not finite, are others; of
    other sizes alone they are not, for nobody here looks at them. It ends with each file: tests of
    eval_ops, which are those of pictures, draw.
    """
    from eval_ops import plots

    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWN:
            patch.setattr(plots, name, _remembered(getattr(plots, name)))
        yield


def _remembered(draw: Callable[..., bytes]) -> Callable[..., bytes]:
    folder = Path(os.environ[OWNER].split(":", 1)[1])

    @functools.wraps(draw)
    def drawn(*given: Any) -> bytes:
        if any(isinstance(each, Iterator) for each in given):
            return draw(*given)
        key = hashlib.sha256(repr((draw.__name__, _without_sizes(given))).encode()).hexdigest()
        kept = folder / f"{key[:32]}.png"
        if not kept.exists():
            new = kept.with_suffix(f".{os.getpid()}")
            new.write_bytes(draw(*given))
            new.replace(kept)
        return kept.read_bytes()

    return drawn


def _without_sizes(value: Any) -> Any:
    """What a picture shows, with each finite number as its sign."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float):
        return math.copysign(float(value != 0), value) if math.isfinite(value) else value
    if is_dataclass(value):
        value = vars(value) if hasattr(value, "__dict__") else asdict(value)
    if isinstance(value, Mapping):
        return [(key, _without_sizes(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [_without_sizes(each) for each in value]
    assert isinstance(value, str | int | None), type(value)
    return value


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

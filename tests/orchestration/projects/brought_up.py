"""Projects that were refreshed once, for tests that begin with one: each gets it as it was then.

What a catalog is called follows from its folder's path, so a test finds its project at the same
path as the one before: the folder is put back from a copy, and Dagster's databases in memory too.
"""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.refreshing.refresh import RefreshReport, refresh
from tests.orchestration.projects.tiny_project import TinyProject, make_project


@dataclass(frozen=True)
class _Kept:
    project: TinyProject
    report: RefreshReport
    databases: list[sqlite3.Connection]


class ProjectsBroughtUp:
    """The projects of one process, below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: dict[str, _Kept] = {}

    def tiny(
        self,
        instance: dg.DagsterInstance,
        recipes: Mapping[str, Mapping[str, object]],
        experts: int = 3,
    ) -> TinyProject:
        """Return a tiny project of these recipes."""
        told = json.dumps([recipes, experts], sort_keys=True)
        name = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self.get(instance, name, lambda root: make_project(root, recipes, experts))[0]

    def get(
        self, instance: dg.DagsterInstance, name: str, make: Callable[[Path], TinyProject]
    ) -> tuple[TinyProject, RefreshReport]:
        """Return a project that is up to date on a fresh instance in memory, and how it came to be.

        `make` writes it into a folder, the first time that one of this name is asked for.
        """
        live, copy = self._root / name / "live", self._root / name / "kept"
        shutil.rmtree(live, ignore_errors=True)
        if (kept := self._kept.get(name)) is None:
            live.mkdir(parents=True)
            project = make(live)
            report = refresh(instance, project.settings())
            assert report.failures == []
            shutil.copytree(live, copy, symlinks=True)
            kept = self._kept[name] = _Kept(project, report, _copied(instance))
        else:
            shutil.copytree(copy, live, symlinks=True)
            _put_back(kept.databases, instance)
        return kept.project, kept.report


def _copied(instance: dg.DagsterInstance) -> list[sqlite3.Connection]:
    copies: list[sqlite3.Connection] = []
    for storage in _storages(instance):
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        with _database(storage) as database:
            database.backup(copy)
        copies.append(copy)
    return copies


def _put_back(copies: list[sqlite3.Connection], instance: dg.DagsterInstance) -> None:
    for copy, storage in zip(copies, _storages(instance), strict=True):
        with _database(storage) as database:
            copy.backup(database)


def _storages(instance: dg.DagsterInstance) -> list[Any]:
    return [instance.run_storage, instance.event_log_storage]


@contextmanager
def _database(storage: Any) -> Iterator[sqlite3.Connection]:
    with storage._engine.connect() as connection:
        yield connection.connection.driver_connection

"""Dagster's SQLite storage, with its connections kept for the time of one refresh.

Dagster opens a database anew for every event, and waits for the disk at each: 9 ms of work and
longer waits, several times a partition. Here the index and the last run's database stay open, and
the disk is waited for at checkpoints of SQLite's write-ahead log. Files and tables are Dagster's,
and other processes use them meanwhile. A killed process loses nothing. A machine that loses power
may forget the last events, never a part of one: those partitions are then made again, from the
store.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import StaticPool

from assets.frame.dagster_internals import (
    INDEX_SHARD,
    ConfigurableClassData,
    DagsterSqliteStorage,
    SqliteEventLogStorage,
)

BUSY_SECONDS = 60
"""How long a write waits for another process's, as Dagster's own storage does."""


class KeptEventLog(SqliteEventLogStorage):
    """Kept event log is Dagster's SQLite event log, with open connections."""

    _engines: dict[str, Engine]

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def _engine(self, shard: str) -> Engine:
        """The engine of one database, its tables made; of runs' databases the last one's stays."""
        engines = vars(self).setdefault("_engines", {})
        if shard not in engines:
            for other in engines.keys() - {INDEX_SHARD}:
                engines.pop(other).dispose()
            options = {"timeout": BUSY_SECONDS, "check_same_thread": False}
            address = self.conn_string_for_shard(shard)
            engine = create_engine(address, poolclass=StaticPool, connect_args=options)
            event.listen(engine, "connect", _wait_at_checkpoints)
            if shard not in self._initialized_dbs:
                if shard == INDEX_SHARD or not self._copied_to(self.path_for_shard(shard)):
                    self._initdb(engine)
                self._initialized_dbs.add(shard)
            engines[shard] = engine
        return engines[shard]

    def _copied_to(self, path: str) -> bool:
        """Make a run's database from an empty one; False where that cannot be.

        To make its tables anew for each run takes Dagster a third of a second, mostly of migrations
        that there is nothing to migrate in.
        """
        state = vars(self)
        if "_empty" not in state:
            state["_empty"] = self._empty_database()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}"  # no name of a run's database
        try:
            with open(temporary, "xb") as file:
                file.write(state["_empty"])
            os.link(temporary, path)
        except OSError:  # it is there, or there are no hard links: Dagster's own way
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return True

    def _empty_database(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "empty.db")
            engine = create_engine(f"sqlite:///{path}", poolclass=StaticPool)
            self._initdb(engine)
            with engine.connect() as connection:
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
            engine.dispose()
            with open(path, "rb") as file:
                return file.read()

    def dispose(self) -> None:
        """Close the connections."""
        for engine in vars(self).pop("_engines", {}).values():
            engine.dispose()
        super().dispose()


class KeptSqliteStorage(DagsterSqliteStorage):
    """Kept SQLite storage is Dagster's, with that event log."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the databases below `base_dir`."""
        super().__init__(base_dir, inst_data)
        ours: Any = self
        log = ours._event_log_storage
        ours._event_log_storage = KeptEventLog(log._base_dir, log.inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> "KeptSqliteStorage":
        """Open what Dagster's configuration names."""
        return cls(config_value["base_dir"], inst_data)


def _wait_at_checkpoints(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")

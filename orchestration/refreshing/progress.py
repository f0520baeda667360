"""Progress bars of a refresh: one a kind of asset, and a line that says what runs now."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from assets.work.names import kind_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


class RefreshProgress:
    """Refresh progress draws bars on a console; with None, or without a terminal, nothing."""

    def __init__(self, console: "Console | None") -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        console = console or Console(quiet=True)
        self._bars = Progress(
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._now = ""

    def __enter__(self) -> "RefreshProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Say what runs now."""
        self._now = text
        if not self._tasks:
            self._tasks["upstream_model"] = self._bars.add_task("upstream_model", total=1, now=text)

    def expect(self, requested: Mapping[dg.AssetKey, Iterable[str | None]]) -> None:
        """Count more partitions that are to be run."""
        if "upstream_model" in self._tasks:
            self._bars.update(self._tasks["upstream_model"], completed=1, now="")
        for key, partitions in requested.items():
            more = len(list(partitions))
            if not more:
                continue
            kind = kind_of(key.to_user_string())
            if kind not in self._tasks:
                self._tasks[kind] = self._bars.add_task(kind, total=0, now="")
            task = self._bars.tasks[self._tasks[kind]]
            self._bars.update(task.id, total=(task.total or 0) + more)

    def advance(self, key: dg.AssetKey, partitions: int) -> None:
        """Count some partitions of an asset as done."""
        task = self._bars.tasks[self._tasks[kind_of(key.to_user_string())]]
        finished = task.completed + partitions >= (task.total or 0)
        now = "" if finished else self._now
        self._bars.update(task.id, advance=partitions, now=now)

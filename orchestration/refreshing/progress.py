"""Progress bars of a refresh: one a kind of asset, and one within the partition that is made."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.work.names import kind_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

WIDTH = 40
"""Characters of what a partition is called, beside its bar."""


class RefreshProgress:
    """Refresh progress draws bars on a console; with None, or without a terminal, nothing."""

    def __init__(self, console: "Console | None") -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        console = console or Console(quiet=True)
        self._bars = Progress(
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}", style="progress.download", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._within: TaskID | None = None
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
            self._tasks["upstream_model"] = self._add("upstream_model", 1, text)

    def expect(self, requested: Mapping[dg.AssetKey, Iterable[str | None]]) -> None:
        """Count more partitions that are to be run."""
        if "upstream_model" in self._tasks:
            self._set(self._tasks["upstream_model"], now="", completed=1)
        for key, partitions in requested.items():
            more = len(list(partitions))
            if not more:
                continue
            kind = kind_of(key.to_user_string())
            if kind not in self._tasks:
                self._tasks[kind] = self._add(kind, 0, "")
            task = self._bars.tasks[self._tasks[kind]]
            self._set(task.id, total=(task.total or 0) + more)

    def advance(self, key: dg.AssetKey, partitions: int) -> None:
        """Count some partitions of an asset as done."""
        task = self._bars.tasks[self._tasks[kind_of(key.to_user_string())]]
        finished = task.completed + partitions >= (task.total or 0)
        now = "" if finished else self._now
        self._set(task.id, now=now, completed=task.completed + partitions)

    def move(self, what: str, done: int, total: int, unit: str) -> None:
        """Draw how far one partition is, or one set of them, as long as it is made."""
        if self._within is None:
            self._within = self._add("", total, "")
        working = 0 <= done < total
        self._bars.update(
            self._within,
            description=f"  {what}"[:WIDTH],
            completed=done,
            total=total,
            amount=amount(done, total, unit),
            visible=working,
        )

    def _add(self, name: str, total: int, now: str) -> "TaskID":
        return self._bars.add_task(name, total=total, now=now, amount=amount(0, total))

    def _set(self, task: "TaskID", **fields: Any) -> None:
        """Change a bar of partitions, and the numbers beside it."""
        self._bars.update(task, **fields)
        shown = self._bars.tasks[task]
        self._bars.update(task, amount=amount(int(shown.completed), int(shown.total or 0)))


def amount(done: int, total: int, unit: str = "items") -> str:
    """Say how much of how much is done: `3/12`, or `1.25/8.00 GB`."""
    if unit != "bytes":
        return f"{done}/{total}"
    size, name = next(
        (each for each in ((1e9, "GB"), (1e6, "MB")) if total >= each[0]), (1e3, "kB")
    )
    return f"{done / size:.2f}/{total / size:.2f} {name}"

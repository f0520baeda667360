"""Counts the answers that a model gives lm-eval, for a progress report.

lm-eval has no callback for progress, and its loops over batches are its own. But it tells a
model's *cache hook* of every answer as it comes, one by one and in each of its three loops, so
that a response cache can keep it (`LM.set_cache_hook`, `CacheHook.add_partial`). There is no such
cache here, so the hook's place is free, and the counter takes it. Counting forward passes instead
would be wrong: one pass answers several questions that share a prompt.
"""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[int, int], None]
"""Told of (answers given, answers asked for)."""

REPORT_EVERY = 32
"""Answers between two reports: a report may write to a log, an answer takes about a millisecond."""


class AnswerCounter:
    """Counts answers and reports every `REPORT_EVERY` of them, and the last one.

    `tasks` are lm-eval's. How many questions they ask is known only when the first answer comes,
    since lm-eval builds the requests itself.
    """

    def __init__(self, progress: Progress | None, tasks: Iterable[Any]) -> None:
        self._progress = progress
        self._tasks = tasks
        self._answers = self._questions = 0

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """Count one answer; the name and the arguments are those of lm-eval's `CacheHook`."""
        if self._progress is None:
            return
        if not self._questions:
            self._questions = sum(len(task.instances) for task in self._tasks)
        self._answers += 1
        if self._answers % REPORT_EVERY == 0 or self._answers == self._questions:
            self._progress(self._answers, self._questions)

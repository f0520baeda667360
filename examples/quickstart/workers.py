"""Child processes that train models, one each at a time, while this process draws the bars.

Each child has one pipe to its parent, for lessons one way and for messages the other. When the
parent is gone, however it went, the next message fails and the child ends. Two children with one
thread each finish no later than one with two threads, and do not crawl on a busy machine.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Literal

from examples.quickstart.recipe import Lesson

CONTEXT: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
"""What starts the children: clean processes, which have not read a thing of this one."""
Step = Callable[[], None]


@dataclass(frozen=True)
class Message:
    """What a child says: a step was made, the model is there, or it failed and why."""

    kind: Literal["step", "done", "failed"]
    seconds: float = 0.0
    trace: str = ""


@dataclass
class _Child:
    process: BaseProcess
    pipe: Connection
    lesson: int | None = None


class Workers:
    """So many child processes, started when this context is entered, gone when it is left."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.children: list[_Child] = []

    def __enter__(self) -> "Workers":
        """Start the children; they load torch while the first model is trained."""
        for _ in range(self.number):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.children.append(_Child(process, ours))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pipes, which ends a child at its next message, and wait for all to end."""
        for child in self.children:
            child.pipe.close()
        for child in self.children:
            child.process.join()

    def run(self, lessons: Sequence[Lesson], steps: Sequence[Step]) -> list[float]:
        """Train the model of each lesson, in order as children are free; return the seconds each.

        `steps[i]` is called as lesson i advances. Raises RuntimeError when a lesson fails or its
        process ends.
        """
        results: dict[int, float] = {}
        waiting = list(range(len(lessons)))
        while len(results) < len(lessons):
            for child in self.children:
                if child.lesson is None and waiting:
                    child.lesson = waiting.pop(0)
                    child.pipe.send(lessons[child.lesson])
            busy = {child.pipe: child for child in self.children if child.lesson is not None}
            for pipe in wait(list(busy)):
                self._hear(busy[pipe], steps, results)
        return [results[number] for number in range(len(lessons))]

    def _hear(self, child: _Child, steps: Sequence[Step], results: dict[int, float]) -> None:
        assert child.lesson is not None
        try:
            message: Message = child.pipe.recv()
        except EOFError:
            child.process.join()
            raise RuntimeError(
                "a process that trained a model ended in the middle "
                f"(exit code {child.process.exitcode}); nothing of it was saved, run this again"
            ) from None
        if message.kind == "failed":
            raise RuntimeError(f"training failed in a child process:\n{message.trace}")
        if message.kind == "step":
            steps[child.lesson]()
        else:
            results[child.lesson] = message.seconds
            child.lesson = None


def _serve(pipe: Connection) -> None:
    """Train what the parent sends until it closes the pipe."""

    def step() -> None:
        pipe.send(Message("step"))

    try:
        from examples.quickstart.school import teach  # loads torch, which the parent does not need

        while True:
            lesson: Lesson = pipe.recv()
            try:
                reply = Message("done", seconds=teach(lesson, step))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception:
                reply = Message("failed", trace=traceback.format_exc())
            pipe.send(reply)
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return

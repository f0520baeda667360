"""Forward passes of a model on CPU cores, several at a time, each with cores of its own.

Cores that share every operation of one pass wait for one another after each of them, hundreds of
times a pass, and share the Python code between operations not at all. Cores that have a pass each
never wait.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

MOST_SIDES = 4
"""Passes at a time: beyond, each is so small that its own matrix products would suffer."""
STEADY = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose forward pass is known to write nothing into the module."""
MOVING_ROPES = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies, kept in the module, follow the longest prompt of a pass."""

Result = TypeVar("Result")


def sides_for(model: Any) -> int:
    """Return how many passes of a Hugging Face model may run at a time on torch's CPU threads."""
    import torch

    if model.device.type != "cpu" or model.config.model_type not in STEADY:
        return 1
    rope: Any = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") in MOVING_ROPES:
        return 1
    return min(MOST_SIDES, torch.get_num_threads())


def in_order(tasks: Iterator[Callable[[], Result]], sides: int) -> Iterator[Result]:
    """Run tasks on `sides` threads, and yield what they return in the order of the tasks.

    Each has its part of torch's CPU threads. What tasks share is made by whoever calls, between
    them, with all threads while none is under way. No task keeps gradients. What one raises is
    raised here.
    """
    import torch

    if sides == 1:
        yield from (task() for task in tasks)
        return
    had = torch.get_num_threads()

    def take_part() -> None:
        torch.get_num_threads()  # a thread's first look takes over the number of the process
        torch.set_num_threads(had // sides)

    def next_task() -> Callable[[], Result] | None:
        torch.set_num_threads(had // sides if under_way else had)
        try:
            return next(tasks, None)
        finally:
            torch.set_num_threads(had)

    def run(task: Callable[[], Result]) -> Result:
        with torch.no_grad():  # each thread has its own setting
            return task()

    pool = ThreadPoolExecutor(sides, initializer=take_part)
    under_way: deque[Future[Result]] = deque()
    try:
        while (task := next_task()) is not None:
            under_way.append(pool.submit(run, task))
            if len(under_way) > 2 * sides:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(had)

"""Pins what makes a computation repeat: the number of threads and every seed."""

import contextlib
import random
from collections.abc import Generator
from typing import Any


@contextlib.contextmanager
def pinned(threads: int | None, seed: int, device: str) -> Generator[None]:
    """Set torch's CPU threads (None: as they are) and all seeds; put everything back at the end.

    `device` ("cpu", "cuda:0") says whose random state to keep besides the CPU's.
    """
    import numpy as np
    import torch

    had_threads, had_random, had_numpy = (
        torch.get_num_threads(),
        random.getstate(),
        np.random.get_state(),
    )
    devices = [torch.device(device)] if device.startswith("cuda") else []
    generators: Any = torch.random
    with generators.fork_rng(devices=devices):
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            random.seed(seed)
            np.random.seed(seed)
            generators.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(had_threads)
            random.setstate(had_random)
            np.random.set_state(had_numpy)


def set_threads(count: int) -> None:
    """Set torch's CPU threads from here on; inside `pinned` they are put back at its end."""
    import torch

    torch.set_num_threads(count)

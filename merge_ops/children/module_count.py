"""A bound on the model that a config describes, by the tensors that are there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

MODULES_A_TENSOR, SPARE_MODULES = 32, 20_000
"""A model with more modules than that is not the one whose tensors are there."""


class ModelTooLargeError(Exception):
    """A config describes a model that its tensors cannot be."""


@contextmanager
def limited_modules(tensors: int) -> Generator[None]:
    """Raise ModelTooLargeError where a model is built that is far larger than its tensors."""
    torch: Any = import_module("torch")
    left = SPARE_MODULES + MODULES_A_TENSOR * tensors

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ModelTooLargeError(
                "config.json describes a far larger model than the tensors are"
            )

    hook = torch.nn.modules.module.register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()

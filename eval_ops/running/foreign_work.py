"""What a model's tokenizer may take: memory and CPU time while foreign code works on text.

A tokenizer is a program of its author: rules that replace one letter by a million, expressions that
take for ever. In a process of our own that is there for it (`limit_tokenizers`), the kernel ends it
at these limits; elsewhere nothing is limited. A healthy tokenizer takes a hundredth of them.
"""

import contextlib
from collections.abc import Generator
from pathlib import Path

SECONDS_A_LETTER = 1e-4
"""CPU time for each letter of a text, on top of what `limit_tokenizers` is given."""
LEAST_MEMORY, MEMORY_A_LETTER = 3 << 30, 256
"""Bytes of data that may come on top of what is held before it."""

MODULES_A_TENSOR, SPARE_MODULES = 32, 20_000
"""A model with more modules than that is not the one whose tensors are there."""

_PAGE_FIELD = 5  # of /proc/self/statm: data and stack, in pages
_state = {"seconds": 0, "inside": 0}


def limit_tokenizers(seconds: int) -> None:
    """Have this process end where a tokenizer takes too much, from here on.

    `seconds` is the CPU time of one piece of work, beside what its letters are given.
    """
    _state["seconds"] = seconds


@contextlib.contextmanager
def limited(letters: int) -> Generator[None]:
    """Limit the work on a text of so many letters; work inside such work has the limits of that."""
    if not _state["seconds"] or _state["inside"]:
        yield
        return
    import resource

    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_DATA)
    before = [resource.getrlimit(kind) for kind in kinds]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = _state["seconds"] + SECONDS_A_LETTER * letters
    more = LEAST_MEMORY + MEMORY_A_LETTER * letters
    wanted = (int(usage.ru_utime + usage.ru_stime + seconds) + 1, _held() + more)
    _state["inside"] = 1
    try:
        for kind, (soft, hard), value in zip(kinds, before, wanted, strict=True):
            resource.setrlimit(kind, (value if soft < 0 else min(value, soft), hard))
        yield
    finally:
        _state["inside"] = 0
        for kind, limits in zip(kinds, before, strict=True):
            resource.setrlimit(kind, limits)


def _held() -> int:
    """Bytes of data that this process has."""
    import resource

    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:  # no Linux
        return 0
    return int(fields[_PAGE_FIELD]) * resource.getpagesize()


@contextlib.contextmanager
def limited_modules(tensors: int) -> Generator[None]:
    """Raise ValueError where a model is built that is far larger than its tensors are many."""
    from torch.nn.modules import module

    left = SPARE_MODULES + MODULES_A_TENSOR * tensors

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(
                f"config.json describes a far larger model than the {tensors} tensors that are"
                " there; it is another model's"
            )

    hook = module.register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()

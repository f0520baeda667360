"""Doing without root's privileges for a moment, so that permissions count in tests run by root."""

import contextlib
import ctypes
import struct
from collections.abc import Iterator

_VERSION = 0x20080522  # of capget(2) and capset(2): two words of each set
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_C = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def permissions_count() -> Iterator[None]:
    """Drop what lets this thread read and write any file; changes nothing for other users."""
    sets = _read()
    dropped = (sets[0] & ~_OVERRIDES, *sets[1:])
    _write(dropped)
    try:
        yield
    finally:
        _write(sets)


def _read() -> tuple[int, ...]:
    """Effective, permitted and inheritable capabilities, the low words, then the high ones."""
    data = ctypes.create_string_buffer(24)
    _call(_C.capget, data)
    return struct.unpack("6I", data.raw)


def _write(sets: tuple[int, ...]) -> None:
    _call(_C.capset, ctypes.create_string_buffer(struct.pack("6I", *sets), 24))


def _call(function, data: ctypes.Array) -> None:
    header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0), 8)
    if function(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be changed")

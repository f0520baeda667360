"""Values of options and environment variables: the one place where they are checked.

Each reader takes what was typed and returns the value, or raises OptionError with what is allowed.
Digits are ASCII digits, few enough to be meant; whoever asks names the option (`read`).
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

from merge_ops.errors import Fault, SettingsError

IN_ENVIRONMENT = ("RONGHE_THREADS", "RONGHE_DEVICE", "RONGHE_MEMORY")
DEVICES = ("auto", "cpu", "cuda")
MOST_THREADS = 4096
MOST_BYTES = 1 << 60
MOST_SECONDS = 100 * 366 * 86_400
SHOWN = 40  # characters of a value that a message repeats
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) *(?:([KMGT])(i?))?B?", re.IGNORECASE)
_PERIOD = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([smhd])")
_WHOLE = re.compile(r"[0-9]{1,19}")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,4})?")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Value = TypeVar("Value")


class OptionError(ValueError):
    """A value that an option does not take; the text says what it takes."""


def read(subject: str, option: str, text: str, reader: Callable[[str], Value]) -> Value:
    """Read the value of an option. Raises SettingsError, in one line, for one that is not taken."""
    faults: list[Fault] = []
    value = collect(option, text, reader, faults)
    if value is None:
        raise SettingsError(subject, faults)
    return value


def collect(
    option: str, text: str, reader: Callable[[str], Value], faults: list[Fault]
) -> Value | None:
    """Read the value of an option; None and one more of `faults` for one that is not taken."""
    try:
        return reader(text)
    except OptionError as error:
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
        verb = "it must be" if option.startswith("RONGHE_") else "give"
        faults.append(Fault(option, f"is {shown!r}; {verb} {error}"))
        return None


def size(text: str) -> int:
    """Read bytes from `512MiB` (2²⁰ each), `5GB` (10⁹ each) or `1000000`; at least one byte."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise OptionError("a number of bytes such as 512MiB or 2GiB")
    unit = (1024 if found[3] else 1000) ** _POWERS[(found[2] or "").upper()]
    nbytes = int(Fraction(found[1]) * unit)
    if not 1 <= nbytes <= MOST_BYTES:
        raise OptionError("a number of bytes from 1 to 1 EiB, such as 512MiB or 2GiB")
    return nbytes


def threads(text: str) -> int:
    """Read a number of threads; 0 is one a core."""
    return whole(text, 0, MOST_THREADS, "0 for one thread a core")


def whole(text: str, least: int, most: int, meaning: str = "") -> int:
    """Read a whole number from `least` to `most`."""
    plain = text.strip()
    number = int(plain) if _WHOLE.fullmatch(plain) else -1
    if not least <= number <= most:
        told = f"a whole number from {least} to {most}"
        raise OptionError(f"{told}, {meaning}" if meaning else told)
    return number


def device(text: str) -> str:
    """Read where to compute: auto, cpu, cuda or cuda:<number>."""
    if _DEVICE.fullmatch(text) is None:
        raise OptionError(f"one of {', '.join(DEVICES)}")
    return text


def period(text: str) -> float:
    """Read seconds from `90s`, `30m`, `24h` or `7d`; 0 with a unit is none."""
    found = _PERIOD.fullmatch(text.strip())
    seconds = float(Fraction(found[1]) * _SECONDS[found[2]]) if found else -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise OptionError("a number and a unit, such as 90s, 30m, 24h or 7d")
    return seconds


def one_of(text: str, allowed: Sequence[str]) -> str:
    """Read one of a few words."""
    if text not in allowed:
        raise OptionError(f"one of {', '.join(allowed)}")
    return text

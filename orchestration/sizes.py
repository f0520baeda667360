"""Sizes as people write them: `512MiB`, `5GB`."""

import re

from merge_ops.errors import Fault, SettingsError

_SIZE = re.compile(r"^\s*([0-9.]+)\s*(?:([KMG])(i?))?B?\s*$", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3}


def parse_size(option: str, text: str) -> int:
    """Read bytes from `512MiB` (2²⁰ each), `5GB` (10⁹ each) or `1000000`, an option's value.

    Raises SettingsError saying what is allowed.
    """
    found = _SIZE.match(text)
    if not found:
        problem = f"is {text!r}; give a number of bytes such as 512MiB or 2GiB"
        raise SettingsError("ronghe merge", [Fault(option, problem)])
    power = _POWERS[(found.group(2) or "").upper()]
    return int(float(found.group(1)) * (1024 if found.group(3) else 1000) ** power)


def size_text(size: int) -> str:
    """Bytes as people compare them with a disk or a line: GB, or MB where there are few."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"

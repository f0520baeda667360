"""Model references that lead nowhere: what each looks like, and what to write instead."""

import os
import re
from pathlib import Path

from merge_ops.errors import did_you_mean

_WINDOWS = re.compile(r"([A-Za-z]):[\\/](.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?(\w+)")


def way_out(folder: str, path: Path) -> str:
    """Say what a reference that leads nowhere looks like, or nothing. `path` is what it means."""
    variable = _VARIABLE.search(str(path))
    windows = _WINDOWS.fullmatch(folder)
    if os.path.islink(path):
        way = "mount it, or download the model again"
        return f". It is a link to {os.readlink(path)}, which is gone; {way}"
    if windows:
        rest = windows[2].replace("\\", "/")
        return f". That is a path of Windows; under WSL it is /mnt/{windows[1].lower()}/{rest}"
    if "\\" in folder:
        return ". Folders are divided by `/` here, not by a backslash"
    if variable:
        return f". The environment has no variable {variable[1]}"
    if folder[:1] in "“‘「" or folder[-1:] in "”’」":
        return ". Its typographic quotes are part of the name; write plain ones, or none"
    hint = did_you_mean(path.name, _beside(path))
    if hint:
        return f".{hint}"
    return ""


def _beside(path: Path) -> list[str]:
    """The folders and files beside where the model should be."""
    try:
        return sorted(each.name for each in path.absolute().parent.iterdir())
    except OSError:
        return []

"""Model references that lead nowhere: what each looks like, and what to write instead."""

import os
import re
from pathlib import Path

from merge_ops.errors import did_you_mean

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_HUB_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/([^/]+/[^/?#]+)"
)
_WINDOWS = re.compile(r"([A-Za-z]):[\\/](.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?(\w+)")


def local_path(folder: str) -> Path:
    """The folder or file that a reference means: `~` and `$VARIABLES` are filled in.

    What is there under the name as it is written is that.
    """
    written = Path(folder)
    if ("~" not in folder and "$" not in folder) or is_there(written):
        return written
    return Path(os.path.expanduser(os.path.expandvars(folder)))


def missing_model(folder: str) -> str:
    """Say that a reference leads nowhere, and how to go on."""
    path = local_path(folder)
    return f"'{folder}': there is no folder {path.absolute()}{way_out(folder, path)}"


def way_out(folder: str, path: Path) -> str:
    """Say what a reference that leads nowhere looks like, or nothing. `path` is what it means."""
    variable = _VARIABLE.search(str(path))
    page, windows = _HUB_PAGE.match(folder), _WINDOWS.fullmatch(folder)
    if os.path.islink(path):
        way = "mount it, or download the model again"
        return f". It is a link to {os.readlink(path)}, which is gone; {way}"
    if page:
        return f". That is a page of the Hub; its model is called {page[1]}"
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
    if _HUB_NAME.fullmatch(folder):
        name, _, revision = folder.partition("@")
        pinned = f" --revision {revision}" if revision else ""
        download = f"hf download {name}{pinned} --local-dir {name.split('/')[1]}"
        return f". It looks like a model of the Hub: download it (`{download}`) and name the folder"
    return ""


def is_there(path: Path) -> bool:
    """Whether a path leads to something; one that is too long or forbidden does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _beside(path: Path) -> list[str]:
    """The folders and files beside where the model should be."""
    try:
        return sorted(each.name for each in path.absolute().parent.iterdir())
    except OSError:
        return []

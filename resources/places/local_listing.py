"""What lies below a folder of a store. What cannot be listed is an error, never an empty folder.

Whoever takes a folder for empty makes everything again, and gc would remove what manifests in it
name. Links are followed: people move what is large to other disks. One that leads nowhere is a disk
that is not mounted.
"""

import os
from collections.abc import Iterator

from resources.errors import StoreFailureError

DOCUMENT = ".json"
"""How documents of a store are called, and no folder: where another thing has such a name, it is
listed as an empty document, so that whoever lists documents reads it and tells its damage."""


def folders_below(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from `top` on with the names of what is no folder in it; each folder once.

    A folder that is called as a document is counts as one of these.

    Folders that are not there, or vanish meanwhile, are left out. Raises OSError where one cannot
    be listed, StoreFailureError where it is a dead link.
    """
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(top, onerror=_unless_gone, followlinks=True):
        found = stat_of(folder)
        if found is None or (found.st_dev, found.st_ino) in seen:  # a link back to where it lies
            below.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        documents = [each for each in below if each.endswith(DOCUMENT)]
        below[:] = [each for each in below if not each.endswith(DOCUMENT)]
        yield folder, [*names, *documents]


def stat_of(path: str) -> os.stat_result | None:
    """Return what `os.stat` says; None where nothing is there (any more).

    Raises StoreFailureError for a link that leads nowhere and is called as folders are: without an
    ending. A document or a file of weights that is one is damage of that one, told by its readers.
    """
    try:
        return os.stat(path)
    except FileNotFoundError:
        _check_link(path)
        return None


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
    _check_link(str(error.filename))


def _check_link(path: str) -> None:
    while not os.path.exists(path):
        if os.path.islink(path) and not os.path.splitext(path)[1]:
            raise StoreFailureError(
                f"artifact store: {path} is a link to {os.readlink(path)}, which is not there;"
                " mount its disk, or remove the link if that part is to be made again"
            )
        path = os.path.dirname(path)

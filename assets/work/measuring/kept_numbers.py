"""Files of measured numbers that are kept, each under what it was measured from.

    ~/.cache/ronghe/<kind>/<key>.safetensors   on this machine
    <kind> [<key>]                             in a catalog's store

Knows no Dagster.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from resources.store import Artifact, ArtifactStore

Numbers = TypeVar("Numbers")

MOST_KEPT = 64
"""Files of a kind that are kept, the last measured; each has some megabytes."""


def file_of(kind: str, key: str, cache: Path | None = None) -> Path:
    """Return where numbers of a kind are kept; `cache` is another folder for them."""
    return (cache or Path.home() / ".cache" / "ronghe" / kind) / f"{key}.safetensors"


def unless_damaged(read: Callable[[], Numbers]) -> Numbers | None:
    """Return what is read; None where there is no such file, or it is damaged."""
    from merge_ops.errors import CheckpointError, StatisticsError

    try:
        return read()
    except (CheckpointError, StatisticsError):
        return None


def publish(
    store: "ArtifactStore", kind: str, key: str, file: str, write: Callable[[Path], None]
) -> "Artifact":
    """Return the artifact of a file that `write` writes, or that another process kept meanwhile."""
    from merge_ops.children import OwnFolder
    from resources.errors import ContentConflictError

    with OwnFolder() as place, store.attempt(kind) as attempt:
        write(place / file)
        attempt.write_bytes(file, (place / file).read_bytes())
        with suppress(ContentConflictError):
            attempt.publish(key)
    store.point(kind, key, kind, key)
    return store.get(kind, key)


def remove_oldest(folder: Path) -> None:
    """Remove all but the last MOST_KEPT files of a folder; another process may do the same."""
    ages: list[tuple[int, Path]] = []
    for path in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):
            ages.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(ages, reverse=True)[MOST_KEPT:]:
        path.unlink(missing_ok=True)

"""A far model as a source of bytes: headers before it is downloaded, everything after."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from merge_ops.checkpoints import FolderSource
from merge_ops.errors import ChangedInputError, MissingModelError
from orchestration.commands.console import PlainConsole, progress_bar
from orchestration.sizes import size_text

if TYPE_CHECKING:  # nothing of a network is imported where all models are here
    from resources.reading import Progress
    from resources.upstream import FarModel


class FarFiles:
    """The files of a far model, read over the network until `fetch` has brought them here."""

    def __init__(self, far: "FarModel") -> None:
        from resources.reading import FarBytes

        self._far, self._afar = far, FarBytes(far)
        self._here: FolderSource | None = None

    @property
    def location(self) -> str:
        """Return the URI that names the model exactly."""
        return self._afar.location

    @property
    def path(self) -> Path | None:
        """Return the folder that the model was fetched into, or None."""
        return self._here.path if self._here is not None else None

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes, by its relative POSIX path."""
        return self._afar.sizes()

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise OSError."""
        (self._here or self._afar).read_into(file, offset, buffer)

    def fetch(self) -> None:
        """Download the model, unless it is here; its size is told before."""
        if self._here is None:
            self._here = FolderSource(fetch(self._far))

    def prove(self, hashed: Mapping[str, tuple[tuple[int, int, int, int, int], str]]) -> None:
        """Compare all reads with what was hashed here, those from afar among them.

        Raises ChangedInputError where one gave other bytes.
        """
        assert self._here is not None  # what is not here has not been hashed
        self._here.prove(hashed)
        for file, start in self._afar.starts.items():
            here = bytearray(len(start))
            if file in hashed:
                self._here.read_into(file, 0, memoryview(here))
            if file in hashed and here != start:
                raise ChangedInputError(
                    f"{self._here.location}/{file} has other bytes than {self.location} gave"
                    " before it was downloaded; run again. Nothing was written"
                )

    def check_unchanged(self) -> None:
        """Raise ChangedInputError where a file that was read is not what it was any more."""
        if self._here is not None:
            self._here.check_unchanged()


def fetch(far: "FarModel") -> Path:
    """Download a far model, telling what and how much before; returns its folder.

    Raises MissingModelError where the disk has no room for it, ModelSourceError where it cannot be
    downloaded.
    """
    console = PlainConsole(stderr=True)
    from resources.upstream import download_text

    told = download_text(far)
    if told is not None:
        where = f"{told} into {far.kept_in}"
        console.print(where, soft_wrap=True)
        _check_room(far, sum(far.sizes().values()))
    with _progress(console, far) as progress:
        return far.fetch(progress)


def _check_room(far: "FarModel", wanted: int) -> None:
    place = far.kept_in
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise MissingModelError(
            f"{far.resolved()} takes {size_text(wanted)}, and {place} has {size_text(free)}"
            f" free; free space, or set {far.variable} to a folder on a larger disk"
        )


@contextmanager
def _progress(console: Console, far: "FarModel") -> "Iterator[Progress]":
    """A bar, from the first byte that is told on; the client of the Hub draws its own."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    bar = progress_bar(console, DownloadColumn(), TransferSpeedColumn())
    task = bar.add_task(far.location, total=None)

    def show(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()

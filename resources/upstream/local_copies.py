"""Models of far places, kept on the local disk: whole ones by revision, and what is half there.

<root>/refs/<branch or tag>       the revision that it was, when it was downloaded
<root>/snapshots/<revision>/      a whole, checked copy; appears by rename
<root>/pulling/<revision>/        being downloaded; a later try goes on from it
<root>/lock                       held while downloading; a `flock`, so it ends with its process
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from resources.errors import ModelSourceError
from resources.locks import opened_lock, take_lock
from resources.reading import Progress
from resources.upstream.cache_notes import read_ref

SOURCES_VARIABLE = "XDG_CACHE_HOME"
_UNFINISHED = ".unfinished"

Pieces = Callable[[str, int], Iterator[memoryview]]
"""(file, start) → the file's bytes from `start` on."""
Check = Callable[[str, Path], None]
"""(file, its copy) → nothing, or ModelSourceError where the copy has other bytes."""


def copies_folder(kind: str, name: str) -> Path:
    """Return the folder that copies of one model are kept in, whether it is there or not."""
    asked = os.environ.get(SOURCES_VARIABLE)
    root = Path(asked).expanduser() if asked else Path.home() / ".cache"
    return root / "ronghe" / "sources" / kind / quote(name, safe=" ")


class LocalCopies:
    """The copies of one far model below `root`; `location` names the model in messages."""

    def __init__(self, root: Path, location: str) -> None:
        self.root = root
        self._location = location

    def find(self, revision: str) -> Path | None:
        """Return the whole copy of a revision, or of what a branch or tag was; None without."""
        with contextlib.suppress(OSError, ValueError):
            revision = read_ref(self.root / "refs" / quote(revision, safe=""))
        folder = self.root / "snapshots" / quote(revision, safe="")
        return folder if folder.is_dir() else None

    def keep(
        self,
        revision: str,
        sizes: Mapping[str, int],
        pieces: Pieces,
        check: Check,
        progress: Progress | None = None,
    ) -> Path:
        """Download the files of a revision that are missing, check them, and return their folder.

        Another process that downloads the same model is waited for. Raises ModelSourceError where
        the disk is full, or a file came with other bytes than it should have.
        """
        folder = self.root / "snapshots" / quote(revision, safe="")
        pulling = self.root / "pulling" / quote(revision, safe="")
        try:
            with self._locked():
                if not folder.is_dir():
                    done, total = 0, sum(sizes.values())
                    for file, size in sizes.items():
                        for count in go_on(pulling / file, file, size, pieces, check):
                            done += count
                            if progress:
                                progress(done, total)
                    folder.parent.mkdir(exist_ok=True)
                    pulling.rename(folder)
        except OSError as error:
            raise ModelSourceError(
                f"model source {self._location} cannot be kept in {self.root}: "
                f"{error.strerror or error}; free space there, or download it to a folder yourself"
            ) from error
        return folder

    def note(self, asked: str, revision: str) -> None:
        """Remember what a branch or tag is now, for times without a network."""
        if asked != revision:
            file = self.root / "refs" / quote(asked, safe="")
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{file.name}.{os.getpid()}")
            temporary.write_text(revision, encoding="utf-8")
            temporary.replace(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "lock"
        with opened_lock(path) as lock:
            take_lock(lock, path, f"the download of {self._location}")
            yield


def go_on(path: Path, file: str, size: int, pieces: Pieces, check: Check) -> Iterator[int]:
    """Download one file to `path`, from where an earlier try broke off; yield the bytes it went on.

    What came so far stands beside it, and becomes the file when all of it is there and checked.
    Raises what `check` does, and then nothing of the file is kept.
    """
    if path.is_file():
        yield size
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + _UNFINISHED)
    with unfinished.open("ab") as out:
        if out.tell() > size:
            out.truncate(0)
        start = at = out.tell()
        yield start
        for piece in pieces(file, start) if start < size else ():
            out.write(piece)
            at += len(piece)
            yield len(piece)
    try:
        check(file, unfinished)
    except ModelSourceError:
        unfinished.unlink()
        raise
    unfinished.rename(path)

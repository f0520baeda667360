"""The one door to the files of a model's folder: regular files that belong to the folder.

A folder that a stranger made may hold links to files of whoever reads it, pipes that never end, and
devices. So a file is looked at and opened here and nowhere else:

- It is a regular file, told by its open descriptor, which no pipe can hold up.
- A link may lead to any file of the folder. In the cache of the Hugging Face Hub it may lead to
  the blobs of the same model (`models--owner--name/snapshots/<commit>/x -> ../../blobs/…`).
- A link of weights may lead anywhere: people keep weights on other disks. What it leads to must
  be weights by its name and its first bytes.
- All other links that leave the folder are refused, unless they are to be followed: then they lead
  to regular files. Nothing of /dev, /proc and /sys is ever read.

Links that leave the folder and have names that no reader takes are passed over, and so are special
files. merge_ops and resources each have this module, word for word (a test compares them): neither
imports the other, and what one of them refused the other may not read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from errno import EISDIR, ELOOP
from itertools import islice
from pathlib import Path

MAX_FILES = 100_000
"""Files of a folder, with those of its sub-folders; a model has hundreds."""
MAX_LEVELS = 8
"""Folders in one another that are looked into."""

TAKEN = re.compile(
    r".*\.(json|txt|jinja|model|spm|tiktoken|bpe|codes|vocab|py|md|safetensors|bin|pt|pth|ckpt|pkl"
    r"|gguf)|(README|LICEN[CS]E|NOTICE|USE_POLICY|COPYING|tokenizer).*",
    re.IGNORECASE | re.DOTALL,
)
"""Names that a reader may take; only of these files and links it is told why they are refused."""
TAKEN_FOLDERS = re.compile(r"additional_chat_templates|custom_generate|\d{1,2}_[A-Z]\w*")
"""Folders whose files belong to a model."""
WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|ckpt|pkl|gguf)", re.DOTALL)
_BLOB = re.compile(r"[0-9a-f]{30,128}")
"""What stores of content call a file: the blobs of a cache, objects of DVC."""
_NO_FILES = ("/dev", "/proc", "/sys")
_MAX_HEADER = 100_000_000
_NO_WEIGHTS = "which holds no weights; put the weights in its place"
WAY_OUT = "put the file itself in its place, or, where the folder is your own, say --follow-links"
"""How to go on from a link that is refused."""


class RefusedFileError(OSError):
    """A file of a folder may not be read; the text is a whole sentence about it."""


@dataclass(frozen=True)
class FolderLook:
    """A look at a folder: its files by relative POSIX path, each with its status.

    `refused` holds, for the names that a reader would take, why their files may not be read.
    `dead` are the links at the folder's top that lead nowhere, each with its target.
    """

    files: Mapping[str, os.stat_result]
    refused: Mapping[str, str]
    dead: Mapping[str, str]


def open_regular(path: Path | str) -> int:
    """Open a regular file for reading and return its descriptor.

    A pipe or a device is neither waited for nor read. Raises RefusedFileError where it is none, and
    OSError where it cannot be opened.
    """
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    if not stat.S_ISREG(kind):  # opening a device may set something off
        raise RefusedFileError(f"{path} is {_named(kind)}, and no file")
    return _checked(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), path)


def _checked(descriptor: int, path: Path | str) -> int:
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    raise RefusedFileError(f"{path} is {_named(kind)}, and no file")


class FolderDoor:
    """A folder door looks at the files of one folder, and opens them."""

    def __init__(self, folder: Path, follow_links: bool = False) -> None:
        self.folder = folder
        self.follow_links = follow_links
        # A name with a zero byte is no folder's, and `look` finds nothing there.
        self._root = os.path.realpath(str(folder).replace("\0", "\ufffd"))
        self._homes = (f"{self._root.rstrip(os.sep)}{os.sep}", *_blobs_of(self._root))

    def look(self, only: str | None = None) -> FolderLook:
        """Return the files of the folder and its sub-folders, without hidden ones, or one of them.

        An absent folder has none. Raises RefusedFileError for far too many, and OSError where the
        folder cannot be read.
        """
        files: dict[str, os.stat_result] = {}
        refused: dict[str, str] = {}
        dead: dict[str, str] = {}
        names = self._names("", 1) if only is None else [only]
        for count, name in enumerate(names if os.path.isdir(self._root) else ()):
            if count >= MAX_FILES:
                raise RefusedFileError(
                    f"{self.folder} holds more than {MAX_FILES} files; name the folder of one model"
                )
            path = os.path.join(self._root, name)
            try:
                files[name] = self._status(name)
            except RefusedFileError as error:
                if is_taken(name):
                    refused[name] = str(error)
            except OSError as error:
                if not isinstance(error, PermissionError) and os.path.islink(path):
                    if "/" not in name:
                        dead[name] = os.readlink(path)
                elif is_taken(name):
                    reason = error.strerror or str(error)
                    refused[name] = f"{self.folder}/{name} cannot be read ({reason})"
        return FolderLook(dict(sorted(files.items())), refused, dead)

    def open(self, name: str) -> int:
        """Open a file by its relative POSIX path and return its descriptor.

        Raises RefusedFileError where it may not be read, and OSError where it cannot be.
        """
        path = self._path(name)
        real = self._real(name, path)
        kind = os.stat(real).st_mode
        if not stat.S_ISREG(kind):
            raise RefusedFileError(f"{path} is {_named(kind)}, and no file; remove or replace it")
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
        descriptor = _checked(os.open(real, flags), path)
        try:
            found, there = os.fstat(descriptor), os.lstat(real)
            same = (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)
            if not same or os.path.realpath(path) != real:
                raise RefusedFileError(f"{path} was exchanged while it was opened; try again")
            if not self._is_home(real) and not self.follow_links:
                _check_weights(path, real, descriptor, found.st_size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _names(self, folder: str, level: int) -> Iterator[str]:
        """What is below a folder but folders and hidden files; links are not gone through."""
        try:
            with os.scandir(os.path.join(self._root, folder)) as listed:
                entries = list(islice(listed, MAX_FILES + 1))
        except PermissionError:
            if not folder:
                raise
            return
        for entry in entries:
            name = f"{folder}{entry.name}"
            if entry.name.startswith("."):
                continue
            if not entry.is_dir(follow_symlinks=False):
                if entry.is_symlink() and not folder and TAKEN_FOLDERS.fullmatch(name):
                    yield from self._linked(name, entry.path)
                else:
                    yield name
            elif level < MAX_LEVELS:
                yield from self._names(f"{name}/", level + 1)

    def _linked(self, folder: str, path: str) -> Iterator[str]:
        """The files of a model's folder that is a link; the link where it may not be followed."""
        try:
            self._real(folder, path)
            with os.scandir(path) as listed:
                entries = list(islice(listed, MAX_FILES + 1))
        except OSError:
            yield folder  # why it is refused, or that it is dead, is told of the link
            return
        for entry in entries:
            if not entry.name.startswith(".") and not os.path.isdir(entry.path):
                yield f"{folder}/{entry.name}"

    def _status(self, name: str) -> os.stat_result:
        """The status of a file that may be read. Raises RefusedFileError for all others."""
        try:
            name.encode()
        except UnicodeEncodeError as error:
            told = os.fsencode(name).decode("utf-8", "backslashreplace")
            raise RefusedFileError(
                f"{self.folder}/{told}: its name is no text; rename it"
            ) from error
        path = self._path(name)
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            real = self._real(name, path)
            found = os.stat(real)
            if not self._is_home(real) and stat.S_ISREG(found.st_mode):
                os.close(self.open(name))  # its first bytes tell whether it is weights
        if not stat.S_ISREG(found.st_mode):
            told = f"{self.folder}/{name} is {_named(found.st_mode)}, and no file"
            raise RefusedFileError(f"{told}; remove or replace it")
        return found

    def _path(self, name: str) -> str:
        parts = name.split("/")
        if "\0" in name or name.startswith("/") or not {"", "..", "."}.isdisjoint(parts):
            raise RefusedFileError(f"{name!r} is no file of {self.folder}")
        return os.path.join(self._root, name)

    def _real(self, name: str, path: str) -> str:
        """Where a file lies, without links. Raises RefusedFileError where that is out of bounds."""
        try:
            real = os.path.realpath(path, strict=True)
        except OSError as error:
            if error.errno == ELOOP:
                raise RefusedFileError(
                    f"{self.folder}/{name} is a link that leads to itself; remove or replace it"
                ) from error
            raise
        if self._is_home(real):
            return real
        told = f"{self.folder}/{name} is a link out of the folder, to {real}"
        if any(real == each or real.startswith(f"{each}/") for each in _NO_FILES):
            raise RefusedFileError(f"{told}, which is no file of a model; put a file in its place")
        if not self.follow_links and not WEIGHTS.fullmatch(name):
            raise RefusedFileError(f"{told}; only weights may lie elsewhere: {WAY_OUT}")
        if not self.follow_links and not _called_weights(real):
            raise RefusedFileError(f"{told}, {_NO_WEIGHTS}")
        return real

    def _is_home(self, real: str) -> bool:
        return real.startswith(self._homes)


def is_taken(name: str) -> bool:
    """Return whether a reader may take a file of this relative POSIX path, or its folder."""
    folder, _, file = name.rpartition("/")
    if folder:
        return TAKEN_FOLDERS.fullmatch(folder) is not None and TAKEN.fullmatch(file) is not None
    return TAKEN.fullmatch(file) is not None or TAKEN_FOLDERS.fullmatch(file) is not None


def _blobs_of(root: str) -> tuple[str, ...]:
    """Where the files of a snapshot of the Hub's cache lie; nothing for other folders."""
    parts = root.split(os.sep)
    for at in range(len(parts) - 2, 0, -1):
        if parts[at] == "snapshots" and parts[at - 1].startswith("models--"):
            return (os.sep.join([*parts[:at], "blobs", ""]),)
    return ()


def _check_weights(path: str, real: str, descriptor: int, size: int) -> None:
    """Raise RefusedFileError unless a file outside the folder is weights."""
    start = os.pread(descriptor, 9, 0)
    header = int.from_bytes(start[:8], "little")
    known = (
        (start[8:] == b"{" and 2 <= header <= min(size - 8, _MAX_HEADER))
        or start.startswith((b"GGUF", b"PK\x03\x04", b"\x80\x02"))
        or (start[:1] == b"\x80" and start[1:2] in b"\x03\x04\x05")
    )
    if not known:
        raise RefusedFileError(f"{path} is a link out of the folder, to {real}, {_NO_WEIGHTS}")


def _called_weights(real: str) -> bool:
    """Whether a file is called as weights are, or as a store of content calls its files."""
    name = os.path.basename(real)
    return WEIGHTS.fullmatch(name) is not None or _BLOB.fullmatch(name) is not None


def _named(mode: int) -> str:
    """What kind of thing this is, in words."""
    kinds = (
        (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISREG, "a file"),
    )  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "something else")

"""A model's folder whose weights lie in memory that its writer shares with the child that reads.

The files beside the weights are in a temporary folder, since they are small. Each file of weights
is memory of this process (`memfd_create`), and the folder has a link to it below /proc, which the
child can open: it has no network, and needs no socket. No disk is touched, no mount has to be large
enough, and the memory goes with the processes that hold it, whatever ends them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from merge_ops.children.closing import ClosedAtEnd
from merge_ops.children.own_folders import OwnFolder

WEIGHTS = ".safetensors"
NAME = "ronghe-weights"
"""What such memory is called in /proc."""


class MemoryFolder(ClosedAtEnd):
    """A sink of one checkpoint at a time: the next one is written over it, in the same memory.

    With `in_memory` false the weights are files of the temporary folder as well, for systems
    without such memory, and for models that it cannot hold twice.
    """

    def __init__(self, in_memory: bool = True) -> None:
        self._own = OwnFolder()
        self._in_memory = in_memory
        self._files: dict[str, MemoryFile] = {}
        self._written: set[str] = set()
        self.path = self._own.path / "model"
        self.path.mkdir()

    def start(self) -> None:
        """Begin the next checkpoint: of the one before, what it does not write again goes."""
        self._written = set()

    def finish(self) -> None:
        """End the checkpoint: remove files that were the one before's alone."""
        for path in sorted(self.path.rglob("*"), reverse=True):
            name = path.relative_to(self.path).as_posix()
            if path.is_symlink() or path.is_file():
                if name not in self._written:
                    self._drop(name)
                    path.unlink()
            else:
                with suppress(OSError):
                    path.rmdir()  # when it is empty

    def open(self, file: str, size: int) -> MemoryFile | PlainFile:
        """Start the file `file` of exactly `size` bytes, and return its writer."""
        self._written.add(file)
        path = self.path / file
        if not (self._in_memory and file.endswith(WEIGHTS)):
            path.parent.mkdir(parents=True, exist_ok=True)
            return PlainFile(path)
        memory = self._files.get(file)
        if memory is None or memory.size != size:  # who has the old one mapped keeps it as it is
            self._drop(file)
            path.unlink(missing_ok=True)
            memory = self._files[file] = MemoryFile(size)
            path.symlink_to(memory.path)
        memory.start()
        return memory

    def _drop(self, file: str) -> None:
        memory = self._files.pop(file, None)
        if memory is not None:
            memory.close()

    def close(self) -> None:
        """Let go of the memory, and remove the folder."""
        for file in list(self._files):
            self._drop(file)
        self._own.close()


class MemoryFile:
    """`size` bytes of memory that others of this user can open by `path`; written in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._done = 0
        self._handle = os.memfd_create(NAME, os.MFD_CLOEXEC)
        os.ftruncate(self._handle, size)
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._handle}")

    def start(self) -> None:
        """Begin to write over what is there."""
        self._done = 0

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes."""
        view = memoryview(data).cast("B")
        while len(view):
            written = os.pwrite(self._handle, view, self._done)
            self._done += written
            view = view[written:]

    def close(self) -> None:
        """Let go of the memory; who has it mapped keeps it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> MemoryFile:
        """Enter the context of one file's writing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the writing; the memory stays."""


class PlainFile:
    """A file that is written in order, new."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def __enter__(self) -> PlainFile:
        """Enter the context at whose end the file is closed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()


def has_memory_files() -> bool:
    """Return whether this system has memory that another process can open by a path."""
    return hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()


def answer(request: Mapping[str, Any], tell: object) -> dict[str, Any]:
    """Say, in the child, whether memory of its parent can be read: the bytes that are there."""
    try:
        return {"bytes": Path(str(request["path"])).read_bytes().decode("ascii")}
    except (OSError, ValueError) as error:
        return {"error": str(error)}

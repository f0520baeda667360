"""Temporary folders that go with their process, and with the next command where it was killed."""

import atexit
from pathlib import Path
from types import TracebackType

from merge_ops.working_folders import make_working_folder, remove_working_folder


class OwnFolder:
    """A temporary folder of this process, there until it is closed or the process ends."""

    def __init__(self) -> None:
        self._place = make_working_folder()  # which says in a file of its own whose it is
        self.path = self._place / "files"
        self.path.mkdir()
        atexit.register(self.close)

    def close(self) -> None:
        """Remove the folder with everything in it."""
        atexit.unregister(self.close)
        remove_working_folder(self._place)

    def __enter__(self) -> Path:
        """Return the folder's path."""
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder."""
        self.close()

"""Faults of the machine as one line: disks, memory, open files, and databases that are held."""

import errno
import os
import sys
from typing import Any

_ADVICE = {
    errno.ENOSPC: "free space there, or use another disk",
    errno.EDQUOT: "the quota of this user is used up: free space, or use another disk",
    errno.EROFS: "the disk is read-only: use another one",
    errno.EACCES: "this user may not do that there",
    errno.EPERM: "this user may not do that there",
    errno.EMFILE: "too many files are open: raise the limit with `ulimit -n`",
    errno.ENFILE: "the machine has too many open files",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EIO: "the disk cannot be read or written: check it",
    errno.ESTALE: "the network disk has it no more: look at the mount, and run this again",
    errno.ENOMEM: "the machine has no memory left: allow fewer threads, or less --memory",
}


def machine_fault(error: BaseException) -> str | None:
    """Return one line that says what the machine lacks; None for an error of another kind."""
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        advice = _ADVICE.get(error.errno)
        if isinstance(error, FileNotFoundError) and not where and not _has_folder():
            where, advice = "the folder of this shell: ", "it was removed: `cd` into another one"
        told = f"{where}{error.strerror or error}"
        return f"error: {told}; {advice}" if advice else f"error: {told}"
    if isinstance(error, MemoryError):
        return f"error: there is no memory left; {_ADVICE[errno.ENOMEM]}"
    return _database_fault(error)


def _has_folder() -> bool:
    """Whether the working folder of this process is still there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _database_fault(error: BaseException) -> str | None:
    """What Dagster's database refuses, without its statement: it holds keys and values."""
    databases: Any = sys.modules.get("sqlalchemy.exc")
    seen: BaseException | None = error
    while databases is not None and seen is not None:
        if isinstance(seen, databases.OperationalError | databases.DatabaseError):
            told = " ".join(str(getattr(seen, "orig", seen)).split())
            if "locked" in told:
                what = "another process writes to it and does not end; stop that one, or wait"
            elif "readonly" in told or "unable to open" in told:
                what = "this user needs to read and write the folder DAGSTER_HOME"
            elif "full" in told:
                what = "free space on the disk of DAGSTER_HOME"
            else:
                what = "look at its disk, or name another DAGSTER_HOME"
            return f"error: Dagster's database: {told}; {what}"
        seen = seen.__cause__ or seen.__context__
    return None

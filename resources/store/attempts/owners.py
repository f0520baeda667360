"""Who writes: a process, named so that others can tell whether it is gone.

On the machine (and in the process namespace) that wrote the name this is certain: the kernel knows
whether a process of that id started at that tick. From anywhere else only silence tells.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SILENCE = 180.0  # seconds without a sign of life after which a process elsewhere counts as gone
_PROC = Path("/proc")
_STATE, _STARTED = 0, 19  # fields behind the name in /proc/<pid>/stat; proc(5)
_DEAD = ("Z", "X")


def this_process() -> dict[str, Any]:
    """Return the name of this process, as JSON values; `place` is empty where none is told."""
    pid = os.getpid()
    name = {"host": socket.gethostname(), "pid": pid, "place": _place()}
    return {**name, "started": (_stat(pid) or {}).get("started")}


def is_gone(owner: Mapping[str, Any], silent_seconds: float) -> bool:
    """Return whether the process of this name is gone, or was silent for so long that it counts so.

    `owner` is what `this_process` gave there; what cannot be understood is judged by its silence,
    the seconds since its last sign of life by the store's clock.
    """
    pid, started = owner.get("pid"), owner.get("started")
    if owner.get("place") and owner.get("place") == _place() and isinstance(pid, int) and started:
        stat = _stat(pid)
        return stat is None or stat["started"] != started or stat["state"] in _DEAD
    return silent_seconds > SILENCE


def _place() -> str:
    """This boot of this kernel and the process namespace: where a process id means something."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _stat(pid: int) -> dict[str, str] | None:
    """State and starting tick of a process; None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return {"state": fields[_STATE], "started": fields[_STARTED]}

"""Small files that caches of models keep beside them: regular ones alone, and within bounds."""

from io import FileIO
from pathlib import Path

from resources.upstream.folder_door import open_regular

MOST = 64 << 20
"""Bytes of a note; what is longer is none."""
MOST_REF = 1000


def read_note(path: Path, most: int = MOST) -> bytes:
    """Read a note. Raises OSError where it is no regular file, ValueError where it is too long."""
    with FileIO(open_regular(path)) as opened:
        data = opened.read(most + 1) or b""
    if len(data) > most:
        raise ValueError(f"{path} is longer than {most} bytes")
    return data


def read_ref(path: Path) -> str:
    """Read what a branch or tag stands for. Raises as `read_note`, and ValueError for no text."""
    return read_note(path, MOST_REF).decode("utf-8").strip()

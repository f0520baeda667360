"""What may stand in the place of a file and is none."""

import os
from pathlib import Path


def put_special(path: Path, kind: str) -> bool:
    """Put a pipe, a folder, a device or a dead link at a free path; False for other kinds."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "dead link":
            path.symlink_to("/nowhere/at/all")
        case _:
            return False
    return True

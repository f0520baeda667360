"""Who changes a store: a user and a machine, as everybody else knows them."""

import contextlib
import getpass
import os
import socket


def this_person() -> str:
    """Return `user@host`; where a container has no such user, the user's number."""
    user = f"uid{os.getuid()}"
    with contextlib.suppress(OSError, KeyError, ImportError):  # no entry for this user
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"

"""`ronghe protection-key`: a new key for `protect:` steps, in a file that only its owner reads."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from merge_ops.errors import OutputError
from merge_ops.symmetries.keys import KINDS, new_key
from orchestration.commands.console import PlainConsole, print_json, say


def write_key(path: Path, kinds: Sequence[str], scaled: bool, as_json: bool = False) -> None:
    """Write a new key; a file that is there is never overwritten. Raises OutputError."""
    key = new_key(kinds or tuple(KINDS), scaled)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        problem = "is there already; a key that is lost undoes nothing any more: name a new file"
        raise OutputError(f"{path} {problem}") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(key.to_json(), indent=2) + "\n")
    if as_json:
        print_json({"path": str(path), "kinds": key.kinds, "digest": key.digest})
        return
    console = PlainConsole()
    say(console, f"{path}: a key for {', '.join(key.kinds)}, {key.digest[:12]}")
    say(console, "Keep it secret and keep a copy: with it the protection is undone bit for bit")

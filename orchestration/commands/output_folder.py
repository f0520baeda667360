"""The output folder of a command: there as a whole, or not at all."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from merge_ops.errors import OutputError


def check_output(out: Path) -> None:
    """Raise OutputError where something is that would be overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not empty; name a new folder or empty this one")


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Make a hidden folder that becomes `out` when all went well, and vanishes otherwise."""
    out = out.absolute()
    stage = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        stage.mkdir(parents=True)
        yield stage
        if out.is_dir():
            out.rmdir()
        stage.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)

"""Files of scores from elsewhere (`scores/*.csv` of a catalog), read as any stranger's file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.checkpoints.files.plain_files import StrangersFiles

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import ImportedScore
    from resources.store import Attempt

IMPORTED_FILE = "imported.scores"
"""The file of a leaderboard that holds imported scores; its tables end in .json and .md."""


def load_imported(path: Path) -> tuple["ImportedScore", ...]:
    """Read and check a file of imported scores. Raises ImportedScoresError with every fault."""
    from eval_ops.errors import ImportedScoresError
    from eval_ops.scores.leaderboard import read_imported

    try:
        data = StrangersFiles().items(path)
    except OSError as error:
        raise ImportedScoresError(str(path), [str(error)]) from error
    return read_imported(data, str(path))


def write_beside(attempt: "Attempt", files: Mapping[str, Path], ranked: bool) -> None:
    """Write what stands beside a leaderboard's tables: imported scores, or that there is no table.

    Raises ImportedScoresError where a file cannot be read.
    """
    from eval_ops.scores.leaderboard import imported_to_json

    scores = [score for path in files.values() for score in load_imported(path)]
    if scores:
        attempt.write_bytes(IMPORTED_FILE, imported_to_json(scores).encode())
    if not ranked:
        attempt.write_bytes("nothing.md", b"No suite can be ranked.\n")

"""Files of scores from elsewhere (`scores/*.csv` of a catalog), read as any stranger's file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_ops.checkpoints.files.plain_files import StrangersFiles

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import ImportedScore
    from resources.store import Artifact, Attempt

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


def imported_beside(artifact: "Artifact | None") -> list[dict[str, Any]]:
    """Return the imported scores beside a leaderboard's tables, as `imported_to_json` wrote them.

    None where there is no leaderboard. Raises DamagedArtifactError where they have not the
    published bytes.
    """
    if artifact is None or IMPORTED_FILE not in artifact.files:
        return []
    return artifact.read_json(IMPORTED_FILE)


def percent_text(row: Mapping[str, Any]) -> str:
    """Write an imported score and its interval in percent: `74.2 (71.8 to 76.5)`."""
    return f"{100 * row['score']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"

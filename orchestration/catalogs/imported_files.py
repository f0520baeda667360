"""scores/*.csv of a catalog: scores from elsewhere, each file checked, with every fault at once."""

from pathlib import Path

from merge_ops.errors import Fault
from orchestration.catalogs.catalog import BrokenPart
from orchestration.catalogs.listing import list_part

FOLDER, SUFFIX = "scores", ".csv"


def imported_files(folder: Path, broken: list[BrokenPart]) -> dict[str, tuple[Path, str]]:
    """Return the sound files by name, each with its digest; faulty ones are added to `broken`."""
    from assets.work.ranking.imports import load_imported
    from eval_ops.errors import ImportedScoresError
    from merge_ops.checkpoints.files.plain_files import digest_of_file

    found: dict[str, tuple[Path, str]] = {}
    for path in list_part(folder / FOLDER):
        if path.suffix != SUFFIX or path.name.startswith("."):
            continue
        place = f"{FOLDER}/{path.name}"
        try:
            load_imported(path)
        except ImportedScoresError as error:
            faults = tuple(Fault(place, problem) for problem in error.faults)
            broken.append(BrokenPart("file", place, faults))
        else:
            found[path.stem] = path, digest_of_file(path)
    return found

"""Suite files: read by the one reader of strangers' files, checked by eval_ops. Knows no Dagster.

eval_ops imports nothing of merge_ops and resources, so the reader (`StrangersFiles`) and the shelf
of fetched data are handed to it.
"""

from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, read_documents
from merge_ops.checkpoints.files.plain_files import StrangersFiles
from merge_ops.errors import did_you_mean, shown

if TYPE_CHECKING:
    from eval_ops.suites import Suite

SHIPPED = "shipped"
"""The key of a suite file that is made of a shipped suite."""


class PinnedShelf:
    """The pinned files of benchmarks on this machine, and models' folders by digest."""

    def find(self, file: tuple[str, str, str, str]) -> Path | None:
        """Return the file on this machine, whose bytes are right, or None."""
        from resources.benchmarks import kept_file

        return kept_file(*file)

    def model_digest(self, folder: Path) -> str:
        """Return the digest of a model's folder, which is remembered while its files stay."""
        from resources.upstream import FolderModel

        return FolderModel(folder).revision()


def load_suite(path: Path, fetch: bool = False) -> "Suite":
    """Read and check a suite file and the items files that it names.

    With `fetch`, pinned data that is not on this machine is fetched; without, its benchmarks wait
    for it. Raises SuiteError, or ItemsError when only items are at fault; each lists every fault.
    """
    suite = _load(path)
    if fetch and suite.waits_for:
        _fetch(path, suite)
        suite = _load(path)
    return suite


def _load(path: Path) -> "Suite":
    from eval_ops.suites import check_suite

    document = _document(path)
    shipped = _shipped_document(document, path)
    return check_suite(document, path, StrangersFiles(), PinnedShelf(), shipped)


def _shipped_document(document: object, path: Path) -> object:
    """The document of the shipped suite that a file names, or None."""
    from eval_ops.errors import SuiteError
    from eval_ops.suites import shipped_suites

    if not isinstance(document, dict) or SHIPPED not in document:
        return None
    name: Any = document[SHIPPED]
    known = shipped_suites()
    if name not in known:
        hint = did_you_mean(str(name), known)
        problem = f"shipped is {shown(name)}, no shipped suite.{hint} Known: {', '.join(known)}"
        raise SuiteError(str(path), [problem])
    return _document(known[name])


def _fetch(path: Path, suite: "Suite") -> None:
    from eval_ops.errors import SuiteError
    from resources.benchmarks import fetch_file
    from resources.errors import ResourceError

    faults: list[str] = []
    for file in dict.fromkeys(suite.waits_for):
        try:
            fetch_file(*file)
        except ResourceError as error:
            faults.append(str(error))
            break  # the others lie at the same address
    if faults:
        raise SuiteError(str(path), faults)


def _document(path: Path) -> object:
    from eval_ops.errors import SuiteError

    try:
        documents = read_documents(path)
    except FileNotFoundError as error:
        raise SuiteError(str(path), ["the suite file does not exist"]) from error
    except DocumentError as error:
        faults = [" ".join(str(fault).split()).removeprefix("the file ") for fault in error.faults]
        raise SuiteError(str(path), [f"the suite file {fault}" for fault in faults]) from error
    if len(documents) > 1:
        problem = f"the suite file holds {len(documents)} YAML documents; a suite is one"
        raise SuiteError(str(path), [problem])
    return documents[0]


def items_are_missing(path: Path) -> bool:
    """Tell whether a suite file names items that are not there, or not there yet."""
    try:
        document = read_documents(path)[0]
    except (OSError, DocumentError):
        return False
    benchmarks = document.get("benchmarks") if isinstance(document, dict) else None
    entries = benchmarks if isinstance(benchmarks, list) else []
    named = [each.get("items") for each in entries if isinstance(each, dict)]
    return any(isinstance(each, str) and not exists(path.parent / each) for each in named)

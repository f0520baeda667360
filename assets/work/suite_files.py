"""Suite files: read by the one reader of strangers' files, checked by eval_ops. Knows no Dagster.

eval_ops imports nothing of merge_ops, so the reader is handed to it (`StrangersFiles`).
"""

from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.checkpoints.bounded_yaml import DocumentError, read_documents
from merge_ops.checkpoints.plain_files import StrangersFiles

if TYPE_CHECKING:
    from eval_ops.suites import Suite


def load_suite(path: Path) -> "Suite":
    """Read and check a suite file and the items files that it names.

    Raises SuiteError, or ItemsError when only items are at fault; each lists every fault.
    """
    from eval_ops.errors import SuiteError
    from eval_ops.suites import check_suite

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
    return check_suite(documents[0], path, StrangersFiles())


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

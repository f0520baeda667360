"""Which names the catalog allows: they become Dagster's asset and partition keys.

Letters and digits of any script will do (中药合并). What a disk or an archive took apart is put
together again: the name of a file counts in Unicode's composed form (NFC).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

RECIPE_NAME = re.compile(r"\w+")
BANNED = re.compile(r"[|\[\],+\s\x00-\x1f\x7f]|\.\.\.")
_SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}\b|[A-Za-z][\w+.-]*://[^/\s@:]+:[^/\s@]+@"
)


def file_name(path: Path) -> str:
    """Return what a part of the catalog is called: its file's name, composed, without the ending.

    Disks of Macs, and archives made on them, take letters apart that have marks (が, é).
    """
    return unicodedata.normalize("NFC", path.stem)


def name_rule() -> str:
    """Say what partition keys may not hold."""
    return "Dagster's partition keys allow no '|', '[', ']', ',', '+', blanks or '...'"


def alike(names: Iterable[str]) -> dict[str, str]:
    """Find names that differ by case, by Unicode's way of writing or by blanks around them alone.

    Returns the others of each such name, for people. Many file systems keep one file for both.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    return {
        name: ", ".join(repr(other) for other in group if other != name)
        for group in groups.values()
        if len(group) > 1
        for name in group
    }


def secret_fault(address: str) -> str | None:
    """Say that an address holds a secret, which stands in manifests later; None where it has none.

    The address is not repeated.
    """
    if not _SECRETS.search(address):
        return None
    return (
        "holds a secret (a password, a token or an access key), and it is kept in manifests; leave"
        " it out: credentials come from the environment"
    )

"""Which of lm-eval's task files define which name, told by one look at their lines.

lm-eval's own index parses fourteen thousand YAML files, eight seconds of CPU time. A name stands on
a line of its own in each of them, so that reading those lines, a third of a second, finds the file.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_NAMES = re.compile(
    rb"""^["']?(task|group)["']?:[ \t]*([^\s#\[{][^\n#]*?)[ \t]*(?:\#.*)?\r?$""", re.M
)


@dataclass(frozen=True)
class TaskFiles:
    """What the files of a folder define: the folder of each single task, and names of groups."""

    tasks: Mapping[str, Path]
    groups: frozenset[str]


@functools.cache
def task_files(root: Path) -> TaskFiles:
    """Read the names of all task files below a folder; of two of one name the first counts."""
    tasks: dict[str, Path] = {}
    groups: set[str] = set()
    for file in sorted(_files(root)):
        if not file.endswith(".yaml"):
            continue
        for kind, written in _NAMES.findall(_content(file)):
            name = written.decode("utf-8", "replace").strip("\"'")
            if kind == b"task":
                tasks.setdefault(name, Path(file).parent)
            else:
                groups.add(name)
    return TaskFiles(tasks, frozenset(groups))


@functools.lru_cache(maxsize=64)
def is_mentioned(root: Path, name: str) -> bool:
    """Whether a name stands anywhere in the files: what none of them has, none can define."""
    sought = name.encode()
    return any(sought in _content(file) for file in _files(root))


def _files(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        yield from (os.path.join(folder, name) for name in names)


def _content(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read()

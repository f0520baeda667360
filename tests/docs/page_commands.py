"""The commands of a page, and a folder in which they do what the page says.

A page says which models it needs:  <!-- project: models/base models/math -->
A block that no test can run says so: <!-- test: not run, needs a bucket -->  before the block.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory

_PROJECT = re.compile(r"<!-- project: (.+?) -->")
_BLOCK = re.compile(
    r"(?:<!-- test: (?P<why>[^>]*?) -->\n+)?^```(?:bash|sh)\n(?P<text>.*?)^```", re.S | re.M
)
NOT_RUN = "not run"
SHAPE = factory.Shape("qwen2", layers=1, hidden=32, intermediate=48, tied=True)


@dataclass(frozen=True)
class Line:
    """One line of a shell block, and why it is not run, where it is not."""

    text: str
    why_not: str = ""

    @property
    def words(self) -> list[str]:
        """The line's words, without what stands behind `#`."""
        return shlex.split(self.text, comments=True)


def lines_of(page: str, section: str = "") -> Iterator[Line]:
    """Yield the lines of the shell blocks of a page, or of one section of it, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        assert text, section
    for block in _BLOCK.finditer(text):
        why = block["why"] or ""
        for line in block["text"].splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield Line(line, why if why.startswith(NOT_RUN) else "")


def models_of(page: str) -> list[str]:
    """Return the folders of models that a page needs."""
    found = _PROJECT.search((ROOT / page).read_text(encoding="utf-8"))
    return found[1].split() if found else []


def write_models(folder: Path) -> None:
    """Write the models that pages name: a base and experts of it, in models/."""
    base = factory.base_tensors(SHAPE)
    factory.write_checkpoint(folder / "models" / "base", base, SHAPE)
    for number, name in enumerate(("math", "code", "poems"), start=1):
        tensors = factory.expert_tensors(base, seed=number)
        factory.write_checkpoint(folder / "models" / name, tensors, SHAPE)

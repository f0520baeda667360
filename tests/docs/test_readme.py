"""What the README tells a reader to type does what it says, on small models of their own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs.architecture_page import ROOT
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Merge your own models")[2].partition("\n## ")[0]


def block(language: str) -> str:
    """The one block of a language in the section on merging one's own models."""
    (found,) = re.findall(f"^```{language}\n(.*?)^```", SECTION, re.DOTALL | re.M)
    return found


@pytest.fixture
def folder(tmp_path):
    """The reader's folder: `mine.yaml` as the README has it, and the models that it names."""
    family = factory.write_family(tmp_path / "family", factory.LLAMA, experts=2)
    (tmp_path / "models").mkdir()
    for made, name in zip((family.base, *family.experts), ("base", "math", "code"), strict=True):
        made.rename(tmp_path / "models" / name)
    (tmp_path / "mine.yaml").write_text(block("yaml"), encoding="utf-8")
    return tmp_path


def merged(folder: Path) -> bytes:
    return (folder / "out" / "model.safetensors").read_bytes()


def by_command(folder: Path) -> bytes:
    """The README's lines for the shell but for the installation; returns the merged weights."""
    lines = [line.partition("#")[0].strip() for line in block("bash").splitlines()]
    assert lines.pop(0) == "make install"
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/ronghe"
        done = ronghe(*arguments, folder=folder)
        assert done.returncode == 0, done.stderr
    return merged(folder)


def test_the_recipe_has_five_lines():
    assert len(block("yaml").splitlines()) == 5


def test_the_commands_merge(folder):
    assert by_command(folder)
    assert {"config.json", "tokenizer.json", "README.md"} <= set(os.listdir(folder / "out"))


def test_the_lines_of_python_write_the_same_weights(folder):
    first = by_command(folder)
    (folder / "out").rename(folder / "by-command")
    (folder / "mine.py").write_text(block("python"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "mine.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert merged(folder) == first

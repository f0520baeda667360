"""What the pages tell a reader to type does what they say, in order, on small models."""

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestration.settings import NAMES
from tests.docs.page_commands import NOT_RUN, lines_of, models_of, write_models
from tests.merging import ROOT, ronghe

RUN = ("docs/concepts.md", "docs/operations.md")
"""Pages whose commands are run from the first to the last."""
SAME = {"docs/concepts.zh-CN.md": "docs/concepts.md"}
"""Pages in Chinese with the commands of an English one."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_models(folder)
    return folder / "models"


@pytest.mark.parametrize("page", RUN)
def test_commands_of_a_page(page: str, models: Path, tmp_path: Path, monkeypatch) -> None:
    for name in (*NAMES, "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(models, tmp_path / "models")
    assert all((tmp_path / each).is_dir() for each in models_of(page))
    folder = tmp_path
    for line in lines_of(page):
        if line.why_not:
            continue
        words = line.words
        if words[0] == "cd":
            folder = folder / words[1]
        elif words[0] == "ronghe" or words[1:2] == ["ronghe"]:
            given = {} if words[0] == "ronghe" else dict([words[0].split("=", 1)])
            done = ronghe(*words[words.index("ronghe") + 1 :], folder=folder, environment=given)
            assert done.returncode == 0, f"{line.text}\n{done.stdout}\n{done.stderr}"
        else:
            assert words[0] in ("cp", "mkdir"), line.text
            subprocess.run(words, cwd=folder, check=True)


@pytest.mark.parametrize("page", SAME)
def test_both_languages_have_the_same_commands(page: str) -> None:
    def said(name: str) -> list[list[str]]:
        given = [line.words for line in lines_of(name)]
        return [[word for word in words if word not in ("--language", "zh")] for words in given]

    assert said(page) == said(SAME[page])


def test_what_is_not_run_says_why() -> None:
    for path in ROOT.glob("docs/*.md"):
        for line in lines_of(path.relative_to(ROOT).as_posix()):
            assert not line.why_not or len(line.why_not) > len(NOT_RUN) + 5

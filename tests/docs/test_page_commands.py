"""What the pages tell a reader to type does what they say, in order, on small models."""

import subprocess
from pathlib import Path

import pytest

from orchestration.commands import cli
from orchestration.settings import NAMES
from tests.docs.page_commands import NOT_RUN, Line, lines_of, models_of, write_models
from tests.merges.merging import ROOT, ronghe

RUN = ("docs/concepts.md", "docs/operations.md", "docs/catalog.md")
"""Pages whose commands are run from the first to the last, in one project: each line once."""
HERE = ("docs/catalog.md",)
"""Pages whose commands need no process of their own."""
SAME = {
    "docs/concepts.zh-CN.md": "docs/concepts.md",
    "docs/operations.zh-CN.md": "docs/operations.md",
    "docs/catalog.zh-CN.md": "docs/catalog.md",
}
"""Pages in Chinese with the commands of an English one."""
SECTIONS = {"README.md": "A catalog of your own", "README.zh-CN.md": "你自己的目录册"}
"""Sections with nothing but commands that are run there."""


def said(line: Line) -> list[str]:
    """The words of a line, wherever its program lies, in whichever language it speaks."""
    first, *rest = line.words
    program = first.removeprefix("../").removeprefix(".venv/bin/")
    return [program, *(word for word in rest if word not in ("--language", "zh"))]


def run_here(words: list[str], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Run a command in this process, in the reader's folder."""
    patch.chdir(folder)
    patch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, words


def test_commands_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_models(tmp_path)
    folder, done = tmp_path, list[list[str]]()
    for page in RUN:
        assert all((tmp_path / each).is_dir() for each in models_of(page))
        for line in lines_of(page):
            words = said(line)
            if words in done or line.why_not:
                continue
            done.append(words)
            if words[0] == "cd":
                folder = folder / words[1]
            elif page in HERE:
                run_here(words, folder, monkeypatch)
            elif "ronghe" in words[:2]:
                at = words.index("ronghe")
                given = dict(word.split("=", 1) for word in words[:at])
                ended = ronghe(*words[at + 1 :], folder=folder, environment=given)
                assert ended.returncode == 0, f"{line.text}\n{ended.stdout}\n{ended.stderr}"
            else:
                assert words[0] in ("cp", "mkdir"), line.text
                subprocess.run(words, cwd=folder, check=True)


@pytest.mark.parametrize("page", SECTIONS)
def test_commands_of_the_readmes_are_among_them(page: str) -> None:
    run = [said(line) for each in RUN for line in lines_of(each)]
    own = [said(line) for line in lines_of(page, SECTIONS[page])]
    assert len(own) >= 4
    assert [words for words in own if words not in run] == []


@pytest.mark.parametrize("page", SAME)
def test_both_languages_have_the_same_commands(page: str) -> None:
    assert [*map(said, lines_of(page))] == [*map(said, lines_of(SAME[page]))]


def test_what_is_not_run_says_why() -> None:
    for path in ROOT.glob("docs/*.md"):
        for line in lines_of(path.relative_to(ROOT).as_posix()):
            assert not line.why_not or len(line.why_not) > len(NOT_RUN) + 5

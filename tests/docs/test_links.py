"""What the pages point to is there: files, headings, paths, commands, make targets, settings."""

import re
from collections import Counter
from functools import lru_cache
from typing import Any
from unicodedata import category

import pytest
from typer.main import get_command

from docs.architecture_page import PACKAGES, ROOT
from orchestration.commands.cli import app
from orchestration.settings import FOR_TESTS, NAMES

FOLDERS = (*PACKAGES, "tests", "docs", "benchmarks", "examples", "deploy", "catalog")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *(each for name in FOLDERS for each in (ROOT / name).rglob("*.md")),
    )
)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """The prose of a page: no blocks of code, no code within lines."""
    return re.sub(r"`[^`\n]*`", "``", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))


def code_in(text: str) -> list[str]:
    """Blocks of code (not Mermaid pictures), and code within lines."""
    blocks = re.findall(r"^```(?!mermaid)\w*\n(.*?)^```", text, re.DOTALL | re.M)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M)
    return [*blocks, *re.findall(r"`([^`\n]+)`", rest)]


@lru_cache
def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.M)
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        kept = [c for c in plain.lower() if c in "-_ " or category(c)[0] in "LM" or c.isdecimal()]
        slug = "".join(kept).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    dead: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        there = path.exists()
        if there and anchor:
            there = anchor in anchors(path.resolve().relative_to(ROOT).as_posix())
        if not there:
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES)
def test_addresses_end_where_the_address_ends(page):
    found = re.findall(r"<(https?://[^>\s]+)>", text_of(page))
    assert [address for address in found if address[-1] in ":;,.)"] == []


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    """Paths in code, with or without an ending; in prose those of files, which have one."""
    places = "|".join((*FOLDERS, r"\.ci"))
    text = text_of(page)
    code, prose = "\n".join(code_in(text)), without_code(text)
    paths = re.findall(rf"(?<![\w/.:-])((?:{places})/[\w./*-]*)", code)
    paths += re.findall(rf"(?<![\w/.:-])((?:{places})/[\w./-]*\.(?:py|md|yaml|c|h|sh))\b", prose)
    dead = [
        path
        for path in (path.rstrip(".") for path in paths)
        if not any(ROOT.glob(path)) and not any((ROOT / page).parent.glob(path))
    ]
    assert dead == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_exist(page):
    """Dotted names such as `python -m benchmarks.fuzz` or `merge_ops.plans`."""
    packages = "|".join((*PACKAGES, "benchmarks", "examples", "docs"))
    dead: list[str] = []
    for code in code_in(text_of(page)):
        for name in re.findall(rf"(?<![\w/.-])((?:{packages})(?:\.\w+)+)", code):
            if not any(module_there(name, last) for last in (0, 1)):
                dead.append(name)
    assert dead == []


def module_there(name: str, attributes: int) -> bool:
    """Whether a dotted name is a file or a package, its last `attributes` parts left out."""
    parts = name.split(".")
    path = ROOT.joinpath(*parts[: len(parts) - attributes])
    is_file = path.with_suffix(".py").is_file() or path.with_suffix(".md").is_file()
    return is_file or (path / "__init__.py").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page):
    commands: dict[str, Any] = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    unknown: list[str] = []
    for code in code_in(text_of(page)):
        for line in code.splitlines():
            for name, rest in re.findall(r"(?:^\s*|[/;|&:] ?)ronghe ([a-z][\w-]*)([^#`|&]*)", line):
                if name not in commands:
                    unknown.append(f"ronghe {name}")
                    continue
                known = {option for each in commands[name].params for option in each.opts}
                known |= {
                    option for each in commands[name].params for option in each.secondary_opts
                }
                known.add("--help")
                for option in re.findall(r"(?:^|\s)(--[a-z][\w-]*)", rest):
                    if option not in known:
                        unknown.append(f"ronghe {name} {option}")
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    named = {
        name
        for code in code_in(text_of(page))
        for name in re.findall(r"(?:^\s*|[;|&:] ?)make ([a-z][a-z-]*)", code, re.M)
    }
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page):
    assert set(re.findall(r"\bRONGHE_[A-Z_]+\b", text_of(page))) - {*NAMES, *FOR_TESTS} == set()


def test_both_readmes_have_the_same_structure():
    """The same code blocks but for their comments, tables of the same size, as many headings."""
    english, chinese = text_of("README.md"), text_of("README.zh-CN.md")
    for pattern in (r"^## ", r"^- ", r"^\|", r"^```"):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), (
            pattern
        )
    assert code_lines(english) == code_lines(chinese)


def code_lines(text: str) -> list[str]:
    """The lines of a page's blocks of shell, YAML and Python, without comments."""
    blocks = re.findall(r"^```(?:bash|sh|yaml|python)\n(.*?)^```", text, re.DOTALL | re.M)
    lines = [re.sub(r"\s*#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_what_is_missing_is_seen():
    assert "who-may-import-whom" in anchors("docs/architecture.md")
    assert "who-may-import-them" not in anchors("docs/architecture.md")
    assert not any(module_there("merge_ops.plans.no_such_module.name", last) for last in (0, 1))

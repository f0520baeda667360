"""Pages that are written by programs are as the programs write them, and leave nothing out."""

import pytest
import yaml

from docs import commands_page, methods_zh_page, recipes_page
from docs.architecture_page import ROOT
from merge_ops.methods import METHODS
from merge_ops.recipes.misplaced import RECIPE_KEYS
from merge_ops.recipes.recipe_check import check_recipe
from merge_ops.recipes.structures.moe_check import MOE_KEYS
from orchestration.commands.help_texts import HELP, is_asked, read_texts


def committed(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recipes(language: str) -> None:
    assert committed(recipes_page.LANGUAGES[language]) == recipes_page.page(language), "make docs"


def test_every_key_of_a_recipe_is_described_once() -> None:
    described = [each["key"] for each in recipes_page.described_keys()]
    assert sorted(described) == sorted({*RECIPE_KEYS, *MOE_KEYS})


@pytest.mark.parametrize("name", recipes_page.EXAMPLES)
def test_examples_of_recipes_are_recipes(name: str) -> None:
    for document in yaml.safe_load_all(recipes_page.EXAMPLES[name]):
        check_recipe(document, name, name)


def test_methods_in_chinese() -> None:
    assert set(methods_zh_page.table()["methods"]) == set(METHODS)
    assert committed("methods.zh-CN.md") == methods_zh_page.page(), "make docs"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_commands(language: str) -> None:
    assert committed(commands_page.LANGUAGES[language]) == commands_page.page(language), "make docs"


def test_every_command_and_option_has_both_languages_and_an_example() -> None:
    """The table is orchestration/commands/help_texts.yaml; a new command needs a row in it."""
    table = read_texts()
    lacking: list[str] = []
    for name, command in commands_page.commands():
        entry = table["commands"].get(name, {})
        lacking += [f"{name}: {key}" for key in ("zh", "examples") if not entry.get(key)]
        said = [p.help.strip() for p in command.params if getattr(p, "help", None) and not p.hidden]
        lacking += [f"{name}: {text!r}" for text in said if text not in table["texts"]]
        lacking += [f"{name}: no help" for _ in [0] if not command.help]
    assert lacking == []


def test_examples_name_their_command() -> None:
    for name, entry in read_texts()["commands"].items():
        for line in entry["examples"]:
            assert f"ronghe {name.split()[0]}" in line


def test_help_is_asked_for_by_an_option_or_by_nothing() -> None:
    assert all(is_asked(given) for given in ([], ["-h"], ["merge", "--help"]))
    assert not is_asked(["merge", "a.yaml", "out"])
    assert HELP == ("-h", "--help")


def test_exit_status_is_told_alike() -> None:
    """The page, and the help of the program in both languages."""
    from orchestration.commands.cli import EXAMPLES

    told = {"0", "1", "2", "129", "130", "143"}
    for text in (EXAMPLES, read_texts()["program"]["epilog"], committed("commands.md")):
        assert {each for each in told if each in text} == told

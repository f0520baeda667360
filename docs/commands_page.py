"""Writes docs/commands.md and docs/commands.zh-CN.md: every command, from the command line itself.

    make docs
    python -m docs.commands_page

The text is that of --help, in both languages (orchestration/commands/help_texts.yaml).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.commands.help_texts import commands_of, read_texts

FOLDER = Path(__file__).parent
LANGUAGES = {"en": "commands.md", "zh": "commands.zh-CN.md"}
HEADS = {
    "en": """\
# Commands

[中文](commands.zh-CN.md)

<!-- Written by `make docs` from the command line and docs/commands_page.py. -->

`ronghe COMMAND --help` says the same, in Chinese where `RONGHE_LANG=zh` or the locale says so.
`ronghe --install-completion` teaches the shell the commands, their options, and the names of
recipes and models of the catalog. Output that is no terminal has no colours.

## Exit status

Every command ends with one of these.

| status | meaning |
|---|---|
| 0 | done |
| 1 | something is wrong with the data, or a part failed; what could be done was done |
| 2 | wrong use, or an input that was refused before any work: nothing was written |
| 129, 130, 143 | stopped by SIGHUP, by Ctrl-C, by SIGTERM; nothing is half there |
""",
    "zh": """\
# 命令

[English](commands.md)

<!-- Written by `make docs` from the command line and docs/commands_page.py. -->

`ronghe 命令 --help` 说同样的内容；`RONGHE_LANG=zh` 或中文环境下用中文。`ronghe --install-completion` 让 shell 补全命令、选项，以及目录册中配方与模型的名字。输出不是终端时没有颜色。

## 退出状态

每条命令都以其中之一结束。

| 状态 | 含义 |
|---|---|
| 0 | 完成 |
| 1 | 数据有问题，或某一部分失败；能做的已做完 |
| 2 | 用法错误，或输入在开工之前被拒绝：什么也没有写 |
| 129、130、143 | 分别被 SIGHUP、Ctrl-C、SIGTERM 停止；不会留下半成品 |
""",
}
COLUMNS = {"en": ("argument or option", "meaning"), "zh": ("参数或选项", "含义")}
DEFAULT = {"en": "default", "zh": "默认"}


def commands() -> list[tuple[str, Any]]:
    """Return every command that is not hidden, with its name, sorted."""
    import typer.main

    from orchestration.commands.cli import app

    found = commands_of(typer.main.get_command(app))
    return sorted((each for each in found if not each[1].hidden), key=lambda each: each[0])


def page(language: str) -> str:
    """Return the whole page in a language."""
    table = read_texts()
    sections = [section(name, command, table, language) for name, command in commands()]
    return "\n".join([HEADS[language], *sections])


def section(name: str, command: Any, table: Mapping[str, Any], language: str) -> str:
    """Return one command: what it does, its arguments and options, an example."""
    entry = table["commands"].get(name, {})
    said = entry.get("zh", "") if language == "zh" else str(command.help or "")
    lines = [f"## ronghe {name}", "", *(_plain(said)), ""]
    rows = [each for each in command.params if getattr(each, "help", None)]
    rows = [each for each in rows if not each.hidden]
    if rows:
        lines += [f"| {' | '.join(COLUMNS[language])} |", "|---|---|"]
        lines += [_row(each, table["texts"], language) for each in rows]
        lines.append("")
    examples = entry.get("examples", ())
    return "\n".join([*lines, "```sh", *examples, "```", ""])


def _plain(text: str) -> list[str]:
    paragraphs = [" ".join(each.split()) for each in text.split("\n\n")]
    return "\n\n".join(each.replace("<", "\\<") for each in paragraphs if each).split("\n")


def _row(parameter: Any, texts: Mapping[str, str], language: str) -> str:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if is_option else (parameter.metavar or parameter.name.upper())
    return f"| `{name}` | {_said(parameter, texts, language)} |"


def _said(parameter: Any, texts: Mapping[str, str], language: str) -> str:
    said = str(parameter.help).strip()
    said = texts.get(said, said) if language == "zh" else said
    default = parameter.show_default if isinstance(parameter.show_default, str) else None
    plain = parameter.default if isinstance(parameter.default, str | int) else None
    if default is None and plain is not None and not isinstance(plain, bool):
        default = str(plain)
    told = f" ({DEFAULT[language]}: {default})" if default else ""
    return f"{said}{told}".replace("|", "\\|").replace("<", "\\<")


def main() -> None:
    """Write both pages."""
    for language, name in LANGUAGES.items():
        (FOLDER / name).write_text(page(language), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What --help says: an example of each command, and everything in Chinese where that is asked for.

The commands say what they do in English, in the code. The rest is data, help_texts.yaml, and is
read when help is asked for and at no other time.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

HELP = ("-h", "--help")
EXAMPLE = {"en": "Example:  ", "zh": "例：  "}
_PANELS = {
    "ARGUMENTS_PANEL_TITLE": "参数",
    "OPTIONS_PANEL_TITLE": "选项",
    "COMMANDS_PANEL_TITLE": "命令",
    "DEFAULT_STRING": "[默认：{}]",
    "REQUIRED_LONG_STRING": "[必填]",
}
"""What typer calls the parts of its help, by its own names."""


def is_asked(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for help: by an option, or by saying nothing."""
    return not arguments or not set(HELP).isdisjoint(arguments)


def read_texts() -> Mapping[str, Any]:
    """Read the table: `program`, `commands` by name, `texts` by their English."""
    from merge_ops.checkpoints.files.bounded_yaml import read_documents

    return read_documents(Path(__file__).with_name("help_texts.yaml"))[0]


def with_help(app: "typer.Typer", language: str) -> Any:
    """Build the command line with an example at the end of each command's help, in a language."""
    import typer.main

    table, group = read_texts(), typer.main.get_command(app)
    if language == "zh":
        _name_panels()
        _translate(group, table["texts"])
        group.help, group.epilog = table["program"]["zh"], table["program"]["epilog"]
    for name, command in commands_of(group):
        entry = table["commands"].get(name, {})
        lines = [EXAMPLE[language] + line for line in entry.get("examples", ())]
        own = (command.epilog or "").replace(EXAMPLE["en"], EXAMPLE[language])
        command.epilog = "\n\n".join(lines) or own or None
        if language == "zh":
            command.help = entry.get("zh", command.help)
            command.short_help = None
            _translate(command, table["texts"])
    return group


def commands_of(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the commands of a command line, each with its name, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in commands_of(command))
        yield name, command


def _translate(command: Any, texts: Mapping[str, str]) -> None:
    for parameter in (*command.params, _help_option(command)):
        said = getattr(parameter, "help", None)
        if said:
            parameter.help = texts.get(said.strip(), said)


def _help_option(command: Any) -> Any:
    """The option --help, which a command makes at its first use and keeps."""
    settings: dict[str, Any] = {"resilient_parsing": True, "help_option_names": list(HELP)}
    context = command.make_context(command.name or "", [], **settings)
    return command.get_help_option(context)


def _name_panels() -> None:
    from rich.table import Table
    from typer import rich_utils

    class Folding(Table):
        """A table whose cells fold: Chinese has no blanks to break a line at."""

        def add_column(self, *given: Any, overflow: Any = "fold", **further: Any) -> None:
            super().add_column(*given, overflow=overflow, **further)

    rich_utils.Table = Folding  # type: ignore[misc]
    for name, text in _PANELS.items():
        setattr(rich_utils, name, text)

"""The console that every command prints on: what strangers wrote cannot command a terminal.

Names of files, tensors and models come from strangers. Here no text is markup, and each control
character (escape sequences, changes of direction, bells) is printed as it is written in a string.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from merge_ops.errors import shown
from orchestration.settings import first_set

if TYPE_CHECKING:  # a plan draws no bar, and its start is counted
    from rich.progress import Progress, ProgressColumn


class PlainConsole(Console):
    """A plain console takes no text as markup and prints control characters as escapes.

    Colours are given by `style` or by a `rich.text.Text`. Where the output is no terminal it has
    `least_width` columns or more, or those of COLUMNS.
    """

    def __init__(self, stderr: bool = False, least_width: int = 0) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)
        if not self.is_terminal and self.width < least_width and not first_set(("COLUMNS",)):
            self.width = least_width

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything, with the control characters in its texts made visible."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(shown(segment.text, lines=True), segment.style)


def say(console: Console, text: object, style: str = "") -> None:
    """Print one line as it is: it is not broken where the terminal ends, nor where a name says."""
    line = text if isinstance(text, Text) else Text(shown(text), style)
    console.print(line, soft_wrap=True)


def print_json(document: Any) -> None:
    """Print plain data as JSON on the standard output, and nothing else.

    Characters that are none of ASCII stay as they are, but for those that a terminal obeys or
    cannot write. A number that is none, or endless, is null: JSON has neither.
    """
    import typer

    text = json.dumps(_finite(document), ensure_ascii=False, indent=2, allow_nan=False)
    typer.echo(
        "\n".join(each if each.isprintable() else _obeyed(each) for each in text.split("\n"))
    )


def _obeyed(line: str) -> str:
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in line)


def _finite(document: Any) -> Any:
    """The same data with null for each number that JSON cannot write."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        given = cast("Mapping[Any, Any]", document)
        return {key: _finite(each) for key, each in given.items()}
    if isinstance(document, list | tuple):
        return [_finite(each) for each in cast("list[Any]", document)]
    return document


def marked(mark: str, style: str, text: object) -> Text:
    """Return a line that begins with a coloured word, such as `warning:`."""
    return Text.assemble((mark, style), f" {shown(text)}")


def progress_bar(console: Console, *further: "ProgressColumn") -> "Progress":
    """Return a bar behind its description; nothing is drawn where the output is no terminal.

    `further` columns stand behind the bar: by default the percentage and the time that is left.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    words = TextColumn("{task.description}", markup=False)
    columns = further or (TaskProgressColumn(), Left())
    return Progress(words, BarColumn(), *columns, console=console, disable=not console.is_terminal)

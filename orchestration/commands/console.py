"""The console that every command prints on: what strangers wrote cannot command a terminal.

Names of files, tensors and models come from strangers. Here no text is markup, and each control
character (escape sequences, changes of direction, bells) is printed as it is written in a string.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from merge_ops.errors import shown

if TYPE_CHECKING:  # a plan draws no bar, and its start is counted
    from rich.progress import Progress, ProgressColumn


class PlainConsole(Console):
    """A plain console takes no text as markup and prints control characters as escapes.

    Colours are given by `style` or by a `rich.text.Text`. `width` is of an output that is no
    terminal.
    """

    def __init__(self, stderr: bool = False, least_width: int = 0) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)
        if not self.is_terminal and self.width < least_width:
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

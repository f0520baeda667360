"""What strangers wrote is printed as it is: no markup, no escape sequence, no line of its own."""

import pytest
from rich.table import Table
from rich.text import Text

from merge_ops.errors import shown
from orchestration.commands.console import PlainConsole, marked, progress_bar, say

HOSTILE = "[/x][red]a[/red]\x1b]0;pwned\x07\x1b[2J\r\x9b31m\u202egnp.exe"
SHOWN = "[/x][red]a[/red]\\x1b]0;pwned\\x07\\x1b[2J\\r\\x9b31m\\u202egnp.exe"


def printed(show) -> str:
    console = PlainConsole(least_width=200)
    with console.capture() as capture:
        show(console)
    return capture.get()


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.print(HOSTILE),
        lambda console: console.print(HOSTILE, style="red", soft_wrap=True),
        lambda console: console.print(Text(HOSTILE)),
        lambda console: say(console, HOSTILE),
        lambda console: say(console, marked("warning:", "yellow", HOSTILE)),
        lambda console: console.print(progress_bar_of(console)),
    ],
    ids=["str", "styled", "Text", "say", "marked", "bar"],
)
def test_nothing_that_a_terminal_obeys_is_printed(show):
    text = printed(show)
    assert "[red]a[/red]" in text
    assert "\\x1b]0;pwned" in text
    assert all(each.isprintable() or each == "\n" for each in text)


def progress_bar_of(console):
    bar = progress_bar(console)
    bar.add_task(HOSTILE, total=3)
    return bar.get_renderable()


def test_a_table_shows_names_as_they_are():
    def show(console):
        table = Table(title=HOSTILE)
        table.add_column(HOSTILE, no_wrap=True)
        table.add_row(shown(HOSTILE + "\nx"))
        console.print(table)

    text = printed(show)
    assert SHOWN + "\\nx" in text
    assert all(each.isprintable() or each == "\n" for each in text)


def test_a_name_makes_no_line_of_its_own():
    assert printed(lambda console: say(console, "a\nwarning: b")) == "a\\nwarning: b\n"


def test_lines_of_ours_stay_lines_and_scripts_stay_as_they_are():
    assert shown("模型 a\tb\n  - c", lines=True) == "模型 a\\tb\n  - c"
    assert shown("ক্\u200dষ 👩\u200d🔬 é") == "ক্\u200dষ 👩\u200d🔬 é"
    assert shown("\ud800\u2028\u2066") == "\\ud800\\u2028\\u2066"
    assert shown(7) == "7"

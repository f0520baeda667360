"""What follows from all answers of a suite, on a terminal: luck, retention, fronts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.commands.console import say
from orchestration.commands.store_tables import print_table

if TYPE_CHECKING:
    from orchestration.commands.console import PlainConsole

KEPT = ("merge", "expert", "its gain", "kept % (95 %)", "learned items", "of these lost")
BROKEN = ("merge", "all had right", "broken", "% (95 %)", "new")


def print_evidence(
    console: "PlainConsole", suite: str, found: Mapping[str, Any] | None, whole: bool
) -> None:
    """Print a suite's evidence below its table: the luck of the best, and the rest with `whole`.

    `found` is None where none was published with this leaderboard.
    """
    if found is None:
        if whole:
            say(console, f"{suite}: no evidence was published with this leaderboard; run")
            say(console, "`ronghe refresh`; it needs validation and test items with answers.")
        return
    if found["luck"] is not None:
        say(console, f"the luck of the best: {found['luck']['told']}")
    if not whole:
        return
    say(console, f"merge or route: {found['advice']} (`ronghe routing` shows the ways)")
    if found["retention"]:
        rows = [_kept(each) for each in found["retention"]]
        _print(console, f"what merges keep of their experts' gains: {suite}", KEPT, rows)
    if found["interference"]:
        rows = [_broken(each) for each in found["interference"]]
        _print(console, f"what merges break that all their inputs had right: {suite}", BROKEN, rows)
    for each in found["fronts"]:
        goals = each["goals"]
        rows = [(row["model"], *map(_shown, each["units"], row["values"])) for row in each["front"]]
        title = f"nothing beats these in {goals[0]} and {goals[1]}: {suite}"
        _print(console, title, ("model", *goals), rows)


def _print(
    console: "PlainConsole", title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print a table below a title that is wider than it."""
    say(console, "")
    say(console, title)
    print_table(console, "", columns, rows)


def _kept(each: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of retention; `no gain` where the expert is not better than the base anywhere."""
    share = "no gain" if each["share"] is None else _percent(each, "share")
    gain = f"{100 * each['gain']:.1f}"
    return each["merge"], each["expert"], gain, share, str(each["learned"]), str(each["lost"])


def _broken(each: Mapping[str, Any]) -> tuple[str, ...]:
    share = each["broken"] / each["sure"] if each["sure"] else 0.0
    told = _percent({**each, "share": share}, "share")
    return each["merge"], str(each["sure"]), str(each["broken"]), told, str(each["new"])


def _percent(each: Mapping[str, Any], value: str) -> str:
    return f"{100 * each[value]:.0f} ({100 * each['low']:.0f} to {100 * each['high']:.0f})"


def _shown(unit: str, value: float) -> str:
    """A score in points; a length in tokens."""
    return f"{value if unit == 'tokens' else 100 * value:.1f}"

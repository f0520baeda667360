"""What should be looked at before a result is used: printed, or an error where that was asked for.

The words come from folders of strangers: they are printed as they are, never as markup, and
without the control characters that a terminal would obey.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.plans import Plan


def cautions_of(plans: Sequence[Plan]) -> list[Caution]:
    """Return the cautions of several plans, each once."""
    return list(dict.fromkeys(caution for plan in plans for caution in plan.cautions))


def show_cautions(console: Console, cautions: Sequence[Caution]) -> None:
    """Print the warnings, one a line, and how many there are."""
    for caution in cautions:
        told = escape(printable(str(caution)))
        console.print(f"[yellow]warning:[/yellow] {told}", soft_wrap=True, highlight=False)
    if cautions:
        count = f"{len(cautions)} warning" + "s" * (len(cautions) > 1)
        console.print(f"{count}; `--strict` makes them errors", soft_wrap=True, highlight=False)


def refuse_cautions(subject: str, cautions: Sequence[Caution]) -> None:
    """Raise CompatibilityError that lists the warnings as faults, where there are any."""
    if cautions:
        faults = [
            Fault(each.where, f"{each.problem}. {each.advice}" if each.advice else each.problem)
            for each in cautions
        ]
        raise CompatibilityError(f"{subject} (with `--strict` warnings are errors)", faults)


def printable(text: str) -> str:
    """Return a text without control characters: each as it is written in a string."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )

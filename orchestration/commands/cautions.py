"""What should be looked at before a result is used: printed, or an error where that was asked."""

from collections.abc import Sequence

from rich.console import Console

from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.plans import Plan
from orchestration.commands.console import marked, say


def cautions_of(plans: Sequence[Plan]) -> list[Caution]:
    """Return the cautions of several plans, each once."""
    return list(dict.fromkeys(caution for plan in plans for caution in plan.cautions))


def show_cautions(console: Console, cautions: Sequence[Caution]) -> None:
    """Print the warnings, one a line, and how many there are."""
    for caution in cautions:
        say(console, marked("warning:", "yellow", caution))
    if cautions:
        count = f"{len(cautions)} warning" + "s" * (len(cautions) > 1)
        say(console, f"{count}; `--strict` makes them errors")


def refuse_cautions(subject: str, cautions: Sequence[Caution]) -> None:
    """Raise CompatibilityError that lists the warnings as faults, where there are any."""
    if cautions:
        faults = [
            Fault(each.where, f"{each.problem}. {each.advice}" if each.advice else each.problem)
            for each in cautions
        ]
        raise CompatibilityError(f"{subject} (with `--strict` warnings are errors)", faults)

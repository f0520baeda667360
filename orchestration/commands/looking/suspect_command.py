"""`ronghe inspect SUSPECT --against MODELS`: is one of these models in it, and how sure is that?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from merge_ops.errors import Fault, SettingsError, shown
from merge_ops.progress import Progress
from merge_ops.stream import StreamSettings
from orchestration.commands.console import PlainConsole, print_json, progress_bar, say
from orchestration.commands.extras import require
from orchestration.commands.looking.compared_models import open_compared
from orchestration.settings import how_to_compute

if TYPE_CHECKING:
    from merge_ops.provenance.inspecting import CandidateEvidence, Inspection

COMMAND = "ronghe inspect"
MOST_LAYERS = 40
MEANING = (
    "A verdict is evidence and no proof. How often it was right and wrong on merges that were made"
    " for it is in docs/ownership.md; a model trained on the same texts as yours looks like yours"
)


@dataclass(frozen=True)
class Suspicion:
    """What is suspected: candidates, by name, that may be parts of a merge from one base."""

    against: tuple[str, ...]
    base: str | None
    as_json: bool = False
    threads: str | None = None
    memory: str | None = None
    follow_links: bool = False


def show_suspect(suspect: str, suspicion: Suspicion) -> None:
    """Print the verdict for every candidate. Exit status 1 where one of them is in the suspect."""
    if suspicion.base is None:
        problem = "is needed with --against: the public base that the candidates come from"
        raise SettingsError(COMMAND, [Fault("--base", problem)])
    for module in ("torch", "scipy"):
        require(module)
    from merge_ops.provenance.inspecting import inspect_suspect

    how = how_to_compute(COMMAND, suspicion.threads, "cpu", suspicion.memory)
    names = [name for each in suspicion.against for name in each.split(",") if name]
    opened = open_compared(COMMAND, [suspect, suspicion.base, *names], suspicion.follow_links)
    bar = progress_bar(PlainConsole(stderr=True))
    with bar:

        def counted(what: str) -> Progress:
            task = bar.add_task(what, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        found = inspect_suspect(
            opened[suspect],
            [opened[name] for name in dict.fromkeys(names)],
            opened[suspicion.base],
            StreamSettings(how.threads, "cpu", how.memory),
            counted,
        )
    if suspicion.as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if any(each.answer == "in it" for each in found.candidates):
        raise SystemExit(1)


def _print(found: "Inspection") -> None:
    console = PlainConsole()
    say(console, f"suspect: {found.suspect}")
    say(console, f"base: {found.base}")
    if found.distance is not None:
        say(console, f"‖suspect − base‖ / ‖base‖: {found.distance[1]:.4g} over layers' matrices")
    if found.origin is not None:
        rho = ", ".join(f"{each[1]:.2f}" for each in found.origin.layers)
        say(
            console,
            f"suspect and base of one origin: independence test p {found.origin.p_value:.2g}"
            f" (ρ {rho}), invariants {_number(found.base_huref)}",
        )
    for note in found.notes:
        say(console, f"note: {note}")
    for each in found.candidates:
        say(console, f"{each.name}: {each.answer} ({each.why})")
    console.print(_table(found.candidates))
    if found.explained is not None:
        say(console, f"all candidates together explain {found.explained:.1%} of what was changed")
    if len(found.candidates) == 1:
        console.print(_layer_table(found.candidates[0]))
    if found.left_out:
        say(console, f"{len(found.left_out)} tensors were not compared; --json names them")
    say(console, MEANING)


def _table(candidates: "Sequence[CandidateEvidence]") -> Table:
    table = Table()
    table.add_column("candidate", overflow="fold")
    for name in ("weight", "95 %", "plain", "spread", "HuRef"):
        table.add_column(name, justify="right")
    for each in candidates:
        table.add_row(
            shown(each.name),
            f"{each.weight:.3f}",
            f"{each.low:.3f} … {each.high:.3f}",
            f"{each.plain_weight:.3f}",
            f"{each.spread:.0%}" if each.weight > 0 else "–",
            _number(each.huref),
        )
    return table


def _layer_table(evidence: "CandidateEvidence") -> Table:
    table = Table(title=f"plain weight of {evidence.name} by layer")
    table.add_column("layer", overflow="fold")
    table.add_column("weight", justify="right")
    table.add_column("95 %, were the rest noise", justify="right")
    for layer, weight, low, high in evidence.by_layer[:MOST_LAYERS]:
        table.add_row(shown(layer or "outside layers"), f"{weight:.3f}", f"{low:.3f} … {high:.3f}")
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

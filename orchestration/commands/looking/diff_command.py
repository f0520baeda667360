"""`ronghe diff`: two checkpoints side by side, in words or as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from merge_ops.errors import shown
from merge_ops.stream import StreamSettings
from orchestration.commands.console import PlainConsole, print_json, progress_bar, say
from orchestration.commands.looking.compared_models import open_compared
from orchestration.settings import how_to_compute

if TYPE_CHECKING:
    from merge_ops.provenance.comparing import CheckpointDifference, TensorDifference

COMMAND = "ronghe diff"
MOST_NAMED = 20
"""Tensors, or settings, that the tables show; --json has all."""
LONGEST_NAME = 40
"""Characters of a tensor's name in a table of 80 columns."""


@dataclass(frozen=True)
class DiffOptions:
    """The options of `ronghe diff`, as they were typed."""

    base: str | None = None
    as_json: bool = False
    threads: str | None = None
    memory: str | None = None
    follow_links: bool = False


def run_diff(first: str, second: str, options: DiffOptions) -> None:
    """Print how two checkpoints differ. Exit status 1 where anything does."""
    from merge_ops.provenance.comparing import compare_checkpoints

    how = how_to_compute(COMMAND, options.threads, "cpu", options.memory)
    names = [first, second, *([options.base] if options.base else [])]
    opened = open_compared(COMMAND, names, options.follow_links)
    base = opened[options.base] if options.base else None
    settings = StreamSettings(how.threads, "cpu", how.memory)
    bar = progress_bar(PlainConsole(stderr=True))
    with bar:
        task = bar.add_task("comparing", total=None)
        found = compare_checkpoints(
            opened[first],
            opened[second],
            base,
            settings,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if options.as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if not found.same:
        raise SystemExit(1)


def _print(found: "CheckpointDifference") -> None:
    console = PlainConsole()
    say(console, f"a: {found.a}")
    say(console, f"b: {found.b}")
    if found.same:
        say(console, "no difference: tensors, config, tokenizer and template are the same")
        return
    for which, names in (("a", found.only_in_a), ("b", found.only_in_b)):
        if names:
            say(console, f"only in {which}: {_listed(names)}")
    for name, ours, theirs in found.shapes[:MOST_NAMED]:
        say(console, f"another shape: {name} is {list(ours)} in a and {list(theirs)} in b")
    _print_rest(console, len(found.shapes), "shapes")
    for (ours, theirs), names in _by_dtypes(found).items():
        say(console, f"another dtype: {ours} in a, {theirs} in b: {_listed(names)}")
    differing = [each for each in found.tensors if each.differing]
    whole = found.whole
    if not differing:
        say(console, f"the values of all {len(found.tensors)} tensors are the same")
    elif whole is not None:
        what = "task vectors" if found.base else "weights"
        share = whole.differing / max(1, whole.count)
        say(
            console,
            f"{len(differing)} of {len(found.tensors)} tensors differ, {share:.2%} of the entries;"
            f" ‖b − a‖ {whole.norm:.4g}, ‖a‖ {whole.norm_a:.4g}, ‖b‖ {whole.norm_b:.4g},"
            f" cosine of the {what} {_number(whole.cosine)}",
        )
        console.print(_layer_table(found))
        console.print(_tensor_table(differing))
    for each in found.tensors:
        if not each.finite:
            say(console, f"not finite: {each.name} holds NaN or infinity")
    if found.settings:
        console.print(_setting_table(found))
        _print_rest(console, len(found.settings), "settings")


def _layer_table(found: "CheckpointDifference") -> Table:
    table = Table()
    table.add_column("layer", overflow="fold")
    for name in ("‖a‖", "‖b‖", "‖b − a‖", "cosine"):
        table.add_column(name, justify="right")
    for each in found.layers:
        place = f"{each.stack} {each.layer}" if each.layer is not None else "outside layers"
        numbers = (each.norm_a, each.norm_b, each.norm)
        table.add_row(shown(place), *(f"{n:.4g}" for n in numbers), _number(each.cosine))
    return table


def _tensor_table(differing: "Sequence[TensorDifference]") -> Table:
    table = Table(title=f"tensors that differ most, of {len(differing)}")
    table.add_column("tensor", overflow="fold", max_width=LONGEST_NAME)
    for name in ("relative", "largest", "cosine", "entries"):
        table.add_column(name, justify="right")
    ordered = sorted(differing, key=lambda each: -(each.relative or 0.0))
    for each in ordered[:MOST_NAMED]:
        table.add_row(
            shown(each.name),
            _number(each.relative),
            _number(each.largest),
            _number(each.cosine),
            f"{each.differing / max(1, each.count):.0%}" if each.norm is not None else "–",
        )
    return table


def _setting_table(found: "CheckpointDifference") -> Table:
    table = Table(title="beside the weights")
    for name in ("about", "where", "a", "b"):
        table.add_column(name, overflow="fold")
    for each in found.settings[:MOST_NAMED]:
        table.add_row(*(shown(cell) for cell in (each.topic, each.where, each.a, each.b)))
    return table


def _by_dtypes(found: "CheckpointDifference") -> dict[tuple[str, str], list[str]]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, ours, theirs in found.dtypes:
        kinds.setdefault((ours, theirs), []).append(name)
    return kinds


def _print_rest(console: PlainConsole, count: int, what: str) -> None:
    if count > MOST_NAMED:
        say(console, f"and {count - MOST_NAMED} more {what}; --json has all")


def _listed(names: Sequence[str]) -> str:
    def parts() -> Iterator[str]:
        yield ", ".join(names[:MOST_NAMED])
        if len(names) > MOST_NAMED:
            yield f"and {len(names) - MOST_NAMED} more"

    return " ".join(parts())


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"

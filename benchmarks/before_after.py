"""Two checkouts of Ronghe by turns on the same files: did a change cost time or memory?

    python -m benchmarks.before_after ../earlier --methods linear,ties --repeats 5

Each checkout has its own `.venv` (`make install`). Merges are whole processes, `ronghe merge` of
the one and of the other by turns, `--repeats` times with the one first and as often with the other
first. The last columns are the later checkout's figure over the earlier one's, of medians: below 1
it became less. On a machine with other work look at CPU seconds, not at the wall.
"""

import argparse
import shlex
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.rigs.contest import (
    Contestant,
    Task,
    by_turns,
    figures,
    markdown,
    models,
    parser_for,
    ratio,
    save,
    say,
    shape_of,
    work_folder,
)
from benchmarks.rigs.processes import ROOT, Run, middle
from benchmarks.rigs.recipes import METHODS, experts_of, recipe

COLUMNS = (
    "method", "checkout", "wall s", "CPU s", "peak MiB", "anonymous MiB",
    "wall, after / before", "CPU, after / before", "peak, after / before",
)  # fmt: skip


def checkout(name: str, folder: Path, options: str = "") -> Contestant:
    """The `ronghe merge` of a checkout's own environment."""
    command = (str(folder / ".venv/bin/ronghe"), "merge")
    return Contestant(name, command, tuple(shlex.split(options)))


def rows_of(method: str, runs: dict[str, list[Run]]) -> list[list[str]]:
    """A row for each checkout, the later one with its ratios."""
    before, after = middle(runs["before"]), middle(runs["after"])
    told = [
        ratio(after.wall, before.wall, 3),
        ratio(after.cpu, before.cpu, 3),
        ratio(after.peak, before.peak, 3),
    ]
    return [
        [method, "before", *figures(runs["before"]), "", "", ""],
        [method, "after", *figures(runs["after"]), *told],
    ]


def by_both_turns(tasks: Mapping[str, Task], repeats: int, label: str) -> dict[str, list[Run]]:
    """Measure `repeats` rounds in which the one goes first, and as many in which the other does.

    What a machine does after a merge (writing back pages, slowing down) falls on whoever is second.
    """
    first = by_turns(tasks, repeats, label)
    second = by_turns({name: tasks[name] for name in reversed(list(tasks))}, repeats, label)
    return {name: [*first[name], *second[name]] for name in tasks}


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """Every method, both checkouts by turns."""
    folders = models(work, arguments.size, arguments.experts, arguments.layers)
    contestants = (
        checkout("before", arguments.earlier),
        checkout("after", arguments.later, arguments.later_options),
    )
    rows: list[list[str]] = []
    records: dict[str, object] = {}
    for method in arguments.methods.split(","):
        taken = experts_of(method, arguments.experts)
        if taken is None:
            say(f"{method} takes more experts than {arguments.experts}: left out")
            continue
        outputs = work / "merged"
        outputs.mkdir(exist_ok=True)
        config = outputs / f"{method}.yaml"
        base, *experts = folders[: taken + 1]
        config.write_text(recipe(method, base, experts), encoding="utf-8")
        tasks = {
            each.name: partial(each.merge, config, outputs / each.name) for each in contestants
        }
        runs = by_both_turns(tasks, arguments.repeats, method)
        rows += rows_of(method, runs)
        records[method] = runs
        shutil.rmtree(outputs)
    print(f"\n{markdown(COLUMNS, rows, left=2)}\n", flush=True)
    save(arguments.json, records)


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("earlier", type=Path, help="a checkout with a .venv of its own")
    parser.add_argument("--later", type=Path, default=ROOT, help="another one (default: this)")
    parser.add_argument("--later-options", default="", help='of its merges, such as "--no-verify"')
    parser.add_argument("--methods", default="linear,ties,dare_ties,della,sce")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--size", default="0.4B")
    arguments = parser.parse_args()
    arguments.earlier, arguments.later = arguments.earlier.resolve(), arguments.later.resolve()
    if unknown := sorted({*arguments.methods.split(",")} - {*METHODS}):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(METHODS)}")
    for folder in (arguments.earlier, arguments.later):
        if not (folder / ".venv/bin/ronghe").exists():
            parser.error(f"no .venv/bin/ronghe in {folder}; `make install` there first")
    needed = (arguments.experts + 3) * shape_of(arguments.size, arguments.layers).nbytes
    with work_folder(arguments, 1.05 * needed) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()

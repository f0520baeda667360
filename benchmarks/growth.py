"""What grows with a catalog and with a model: time and memory of each, in a process of its own.

    python -m benchmarks.growth                               # small, a few minutes
    python -m benchmarks.growth --full --earlier ../earlier   # as promised, before and after
    python -m benchmarks.growth --rows leaderboard,picture --full

Rows: definitions (what each step's process loads), many-definitions (1,000 models, in pairs),
champions (of recipes with 200 points each), leaderboard (one new row among many), picture (of a
merge_plan), lineage, impact and ls (of a tenth as many models as partitions), plan, merge,
unchecked-merge (without asking transformers how it would load the result) and inspect (a
checkpoint of very many tiny tensors; mergekit beside the merge where it is installed) and idle
(what a day of looking at the upstream models leaves on the disk).

Each row prepares a folder, unmeasured, and runs one process, in this checkout and with `--earlier`
in another one with a `.venv` of its own. `work s` is the row's own seconds, without Python's start,
and `of it CPU` the process's: on a machine with other work look at these. What an earlier checkout
does not end within `--limit` seconds is told as that.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rigs.contest import markdown, parser_for, save, say, work_folder
from benchmarks.rigs.processes import ROOT, RunFailedError, measure

RIGS = ROOT / "benchmarks" / "rigs"
TENSORS = "tensors"
"""How a row is prepared that has a program of its own for it."""
COLUMNS = ("row", "size", "checkout", "wall s", "CPU s", "work s", "of it CPU", "peak MiB", "told")


@dataclass(frozen=True)
class GrowthRow:
    """One row: its sizes, small and full, what they count, and how it is prepared and run.

    `stage` is a function of growth_work.py, or with `verb` a command of `ronghe`.
    """

    counts: str
    small: int
    full: int
    prepare: str | None
    stage: str
    verb: tuple[str, ...] = ()


ROWS = {
    "definitions": GrowthRow("experts in pairs", 60, 500, "prepare_definitions", "definitions"),
    "60000-definitions": GrowthRow(
        "experts in pairs", 40, 200, "prepare_definitions", "definitions"
    ),
    "many-definitions": GrowthRow(
        "experts in pairs", 100, 1000, "prepare_definitions", "definitions"
    ),
    "champions": GrowthRow("recipes of 200 points", 2, 50, "prepare_champions", "champions"),
    "leaderboard": GrowthRow("experts in pairs", 8, 100, "prepare_leaderboard", "leaderboard"),
    "picture": GrowthRow("experts", 40, 150, None, "picture"),
    "plan": GrowthRow("tensors", 2000, 100_000, TENSORS, "", ("plan", "recipe.yaml")),
    "merge": GrowthRow("tensors", 2000, 100_000, TENSORS, "", ("merge", "recipe.yaml", "out")),
    "unchecked-merge": GrowthRow(
        "tensors", 2000, 100_000, TENSORS, "", ("merge", "--no-verify", "recipe.yaml", "out")
    ),
    "inspect": GrowthRow("tensors", 2000, 100_000, TENSORS, "", ("inspect", "base")),
    "lineage": GrowthRow("partitions", 200, 10_000, "prepare_ancestry", "lineage"),
    "impact": GrowthRow("partitions", 200, 10_000, "prepare_ancestry", "impact"),
    "ls": GrowthRow("partitions", 200, 10_000, "prepare_ancestry", "ls"),
    "idle": GrowthRow("looks", 30, 288, None, "idle"),
}


def python_of(checkout: Path, *arguments: str) -> list[str]:
    """The command of a rig in a checkout, which finds that checkout's packages alone."""
    program = RIGS / "growth_work.py"
    if arguments[0] == TENSORS:
        program, arguments = RIGS / "growth_tensors.py", arguments[1:]
    return [str(checkout / ".venv/bin/python"), "-P", str(program), *arguments]


def run_row(
    name: str, checkout: Path, folder: Path, arguments: argparse.Namespace
) -> tuple[list[str], dict[str, object]]:
    """Prepare and measure one row in one checkout: its cells, and everything that was told."""
    row = ROWS[name]
    size = str(row.full if arguments.full else row.small)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = {"PYTHONPATH": str(checkout), "HOME": str(folder)}
    if row.prepare is not None:
        command = python_of(checkout, row.prepare, str(folder), size)
        subprocess.run(command, check=True, cwd=folder, env=os.environ | paths)
    if row.verb:
        ronghe = str(checkout / ".venv/bin/ronghe")
        placed = [each if each.startswith("-") else str(folder / each) for each in row.verb]
        command = [ronghe, row.verb[0], *placed[1:]]
    else:
        command = python_of(checkout, row.stage, str(folder), size)
    try:
        with limited(arguments.limit):
            run = measure(command, **paths)
    except OverTimeError:
        return [f"over {arguments.limit}", "", "", "", "", ""], {"over": arguments.limit}
    except RunFailedError as error:
        say(str(error))
        return ["failed", "", "", "", "", ""], {"failed": str(error)[-500:]}
    clock = folder / "seconds.json"
    told = json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else {}
    work = [f"{told.pop(each):.2f}" if each in told else "" for each in ("seconds", "cpu")]
    words = ", ".join(f"{key} {value:,}" for key, value in told.items())
    cells = [f"{run.wall:.2f}", f"{run.cpu:.2f}", *work, f"{run.peak:.0f}", words]
    return cells, {"run": run, **told}


class OverTimeError(Exception):
    """A row took longer than it may."""


class limited:
    """End what runs inside after so many seconds, with OverTimeError; its process is ended too."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        def over(*_: object) -> None:
            raise OverTimeError

        signal.signal(signal.SIGALRM, over)
        signal.alarm(self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
            os.waitpid(int(child), 0)


def mergekit_cells(
    name: str, folder: Path, arguments: argparse.Namespace
) -> Iterator[tuple[str, list[str]]]:
    """Mergekit on the same tensors, where it is installed."""
    if name == "merge" and arguments.mergekit.exists():
        command = [str(arguments.mergekit), str(folder / "recipe.yaml"), str(folder / "theirs")]
        try:
            with limited(arguments.limit):
                run = measure(command)
        except OverTimeError:
            yield "mergekit", [f"over {arguments.limit}", "", "", "", "", ""]
        except RunFailedError as error:
            say(str(error))
            yield "mergekit", ["failed", "", "", "", "", ""]
        else:
            yield "mergekit", [f"{run.wall:.2f}", f"{run.cpu:.2f}", "", "", f"{run.peak:.0f}", ""]


def benchmark(work: Path, arguments: argparse.Namespace, rows: Sequence[str]) -> None:
    """Every row, in every checkout."""
    checkouts = {"before": arguments.earlier, "after": ROOT}
    table: list[list[str]] = []
    records: dict[str, object] = {}
    for name in rows:
        size = ROWS[name].full if arguments.full else ROWS[name].small
        label = [name, f"{size:,} {ROWS[name].counts}"]
        for which, checkout in checkouts.items():
            if checkout is not None:
                say(f"{name} {which}")
                cells, records[f"{name} {which}"] = run_row(name, checkout, work / name, arguments)
                table.append([*label, which, *cells])
        for which, cells in mergekit_cells(name, work / name, arguments):
            table.append([*label, which, *cells])
        shutil.rmtree(work / name, ignore_errors=True)
    print(f"\n{markdown(COLUMNS, table, left=3)}\n", flush=True)
    save(arguments.json, records)


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--full", action="store_true", help="the sizes that are promised")
    parser.add_argument("--earlier", type=Path, help="an earlier checkout, with its own .venv")
    parser.add_argument("--limit", type=int, default=600, help="seconds of one measured process")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    if unknown := sorted({*rows} - {*ROWS}):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(ROWS)}")
    if arguments.earlier is not None:
        arguments.earlier = arguments.earlier.resolve()
        if not (arguments.earlier / ".venv/bin/ronghe").exists():
            parser.error(f"no .venv/bin/ronghe in {arguments.earlier}; `make install` there first")
    with work_folder(arguments, 2e9 if arguments.full else 2e8) as work:
        benchmark(work, arguments, rows)


if __name__ == "__main__":
    sys.exit(main())

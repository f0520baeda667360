"""Contestants that take turns, tables of what was measured, and the options of all benchmarks.

Ronghe hashes its inputs for the model card and remembers the hashes in the home folder; in measured
rounds they are known, for the warm-up round was there before.

Nothing here imports torch (see processes.py): what needs it runs in a process of its own.
"""

import argparse
import fcntl
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.rigs.processes import COPY, ROOT, Run, RunFailedError, machine, measure, middle
from benchmarks.rigs.shapes import SHAPES, Shape, model_folder

# Others do not ask transformers about what they wrote either.
RONGHE = (
    sys.executable,
    "-c",
    "from orchestration.commands.cli import main; main()",
    "merge",
    "--no-verify",
)
Task = Callable[[], Run]


@dataclass(frozen=True)
class Contestant:
    """A program that merges: its name and the command before CONFIG and OUT, and after them.

    One that `forgets` has an empty home folder each time, and so remembers nothing of its inputs.
    """

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    forgets: bool = False

    def merge(self, config: Path, out: Path) -> Run:
        """One whole process; what was in `out` is removed first."""
        shutil.rmtree(out, ignore_errors=True)
        command = [*self.command, str(config), str(out), *self.options]
        if not self.forgets:
            return measure(command)
        with tempfile.TemporaryDirectory() as home:
            return measure(command, HOME=home)


def ronghe(arguments: argparse.Namespace) -> Contestant:
    """This project."""
    return Contestant("ronghe", RONGHE, tuple(shlex.split(arguments.ronghe_options)))


def mergekit(arguments: argparse.Namespace, options: str = "") -> Contestant:
    """The peer, on the CPU, with its default options or further ones."""
    name = f"mergekit {options}".strip()
    return Contestant(name, (str(arguments.mergekit),), tuple(shlex.split(options)))


def copy(weights: Sequence[Path], out: Path) -> Run:
    """A process that only reads all files and writes the first: the least a merge could take."""
    run = measure([sys.executable, "-c", COPY, str(out), *map(str, weights)])
    out.unlink()
    return run


def by_turns(tasks: Mapping[str, Task], repeats: int, label: str) -> dict[str, list[Run]]:
    """One unmeasured round, then `repeats` measured ones, the tasks taking turns.

    The first task must succeed; another that fails is told of, and has no runs.
    """
    runs: dict[str, list[Run]] = {name: [] for name in tasks}
    running = dict(tasks)
    for turn in range(repeats + 1):
        for name, task in list(running.items()):
            try:
                run = task()
            except RunFailedError as error:
                say(f"  {label} {name} failed: {error}")
                if name == next(iter(tasks)):
                    sys.exit(1)
                del running[name]
                runs[name] = []
                continue
            if turn:
                runs[name].append(run)
            which = f"round {turn}" if turn else "warm-up"
            say(
                f"  {label} {which} {name}: {run.wall:.2f} s, CPU {run.cpu:.2f} s, "
                f"peak {run.peak:.0f} MiB ({run.anonymous:.0f} anonymous), read {run.read:.0f} MB"
            )
    return runs


def module(name: str, *arguments: str) -> str:
    """Runs a module of the project in a process of its own; its output."""
    return python("-m", name, *arguments)


def python(*arguments: str) -> str:
    """Runs Python in the project's folder; its output."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


def models(
    work: Path, size: str, experts: int, layers: int | None = None, distinct: int | None = None
) -> list[Path]:
    """The base and the experts of a size, made unless they are there."""
    root = work / (size if layers is None else f"{size}-{layers}-layers")
    say(f"checkpoints in {root}")
    options = ["--layers", str(layers)] if layers is not None else []
    options += ["--distinct", str(distinct)] if distinct is not None else []
    where = ["make", str(root), "--size", size, "--experts", str(experts)]
    module("benchmarks.checkpoints", *where, *options)
    return [model_folder(root, number) for number in range(experts + 1)]


def shape_of(size: str, layers: int | None) -> Shape:
    """A size, with another number of layers where one is given."""
    return replace(SHAPES[size], layers=layers or SHAPES[size].layers)


def weights_of(folders: Sequence[Path]) -> list[Path]:
    """The weight files of checkpoints that the benchmarks made."""
    return [folder / "model.safetensors" for folder in folders]


def difference(theirs: Path, ours: Path) -> dict[str, float]:
    """How far two merged checkpoints are apart (benchmarks.checkpoints compare)."""
    return json.loads(module("benchmarks.checkpoints", "compare", str(theirs), str(ours)))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are to the left, the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(columns) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def figures(runs: Sequence[Run]) -> list[str]:
    """Median wall seconds, CPU seconds, peak and anonymous MiB as cells; `failed` without runs."""
    if not runs:
        return ["failed", "", "", ""]
    m = middle(runs)
    return [f"{m.wall:.2f}", f"{m.cpu:.2f}", f"{m.peak:.0f}", f"{m.anonymous:.0f}"]


def ratio(value: float, to: float, digits: int = 1) -> str:
    """`value / to`, or a dash where that says nothing."""
    return f"{value / to:.{digits}f}" if to > 0 and value > 0 else "–"


def parser_for(text: str | None) -> argparse.ArgumentParser:
    """A command line with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="where to put checkpoints (default: temporary)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, help="fewer than the size has, for a quick try")
    parser.add_argument("--ronghe-options", default="", help='such as "--threads 1"')
    parser.add_argument("--mergekit", type=Path, default=ROOT / ".venv-oracle/bin/mergekit-yaml")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    return parser


def need_mergekit(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Stops where the peer is not installed."""
    if not arguments.mergekit.exists():
        parser.error(f"no mergekit at {arguments.mergekit}; `make oracle` installs it")


@contextmanager
def work_folder(arguments: argparse.Namespace, needed: float) -> Iterator[Path]:
    """The folder to work in, which has so many bytes free for files that are not there yet."""
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
        check_room(arguments.work, needed)
        with (arguments.work / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(f"another benchmark runs in {arguments.work}; wait or use another --work")
            yield arguments.work.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ronghe-bench-") as folder:
        check_room(Path(folder), needed)
        yield Path(folder).resolve()


def check_room(folder: Path, needed: float) -> None:
    """Stops where a disk is too small; what lies in the folder already counts as room."""
    there = {
        (stat.st_dev, stat.st_ino): stat.st_size
        for stat in (path.stat() for path in folder.rglob("*.safetensors"))
    }
    if shutil.disk_usage(folder).free + sum(there.values()) < needed:
        sys.exit(f"{folder} has not the {needed / 1e9:.1f} GB free that this takes; use --work")


def save(path: Path | None, content: Mapping[str, object]) -> None:
    """Prints what machine it was, and writes every figure as JSON where that is asked for."""
    facts = machine()
    print(f"\n{facts}")
    if path:
        text = json.dumps({"machine": facts, **content}, indent=2, default=plain)
        path.write_text(text + "\n", encoding="utf-8")


def plain(value: object) -> object:
    """A run as JSON."""
    if isinstance(value, Run):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} does not go into JSON")


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)

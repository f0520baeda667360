"""Send signals to merges and refreshes at random moments, and look at what they leave.

    python -m benchmarks.signals --signals 60 --seed 1

Each trial starts `ronghe merge` or `ronghe refresh` as a process group of its own and sends it
SIGINT (to the group, as a terminal does) or SIGTERM (to the process, as a queue does) at a moment
that is uniform over the life of such a process, start-up included. Then:

- it must end within 10 s, with 130 or 143, one line and no traceback,
- the next command must succeed, with the digests of one that nobody stopped,
- after it nothing may be left: processes of the group, working folders beside the output and in
  TMPDIR, semaphores in /dev/shm, runs of Dagster that count as in progress.

A signal that comes before Python has run a line of ours ends the interpreter in its own way; those
trials are counted apart ("too early"). A miss is printed, and makes the exit status 1.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import (
    SLERP,
    TASK_ARITHMETIC,
    TinyProject,
    make_project,
)

PROGRAM = (sys.executable, "-c", "from orchestration.commands.start import main; main()")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LIMIT = 10.0
EARLY = 0.25
"""Seconds in which an interpreter on a busy machine may not have come to our first line."""
SHAPE = factory.Shape("qwen2", layers=2, hidden=256, intermediate=8192, tied=True)  # 28 MB
TINY = factory.Shape("qwen2", layers=1, hidden=32, intermediate=48, tied=True)
RECIPE = """
merge_method: ties
base_model: {0}
models: [{{model: {1}}}, {{model: {2}}}]
parameters: {{weight: 0.5, density: 0.4}}
"""
TELLS_TIMES = {"leaderboard", "catalog_site"}  # two that say the same are other bytes
STOPS_IN_A_ROW = 4  # of one refresh, before it is let run to its end


@dataclass
class Tally:
    """What became of the trials of one command and signal."""

    trials: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    misses: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """A line of the table."""
        of = self.outcomes
        numbers = (self.trials, of["stopped"], of["done before"], of["too early"])
        cells = " | ".join(map(str, numbers))
        return f"| {name} | {cells} | {self.longest:.1f} s | {len(self.misses)} |"


class Trials:
    """Trials of one command; a subclass knows what is run and what must come out."""

    name = ""

    def __init__(self, work: Path, chance: random.Random) -> None:
        self.work = work
        self.chance = chance
        self.temporary = work / "tmp"
        self.temporary.mkdir(parents=True)
        self.life = 1.0
        self.semaphores = set(semaphores())

    def environment(self) -> Mapping[str, str]:
        """Variables of the command."""
        return {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The command, in a session of its own."""
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=ROOT,
            env=dict(self.environment()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, *arguments: str) -> str:
        """Run a command to its end; returns what it printed."""
        process = self.start(*arguments)
        told, _ = process.communicate()
        assert process.returncode == 0, (arguments, process.returncode, told)
        return told

    def trial(self, number: signal.Signals, tally: Tally, *arguments: str) -> str:
        """Start the command, stop it, and look at how it ended; returns the outcome."""
        moment = self.chance.uniform(0.0, self.life)
        process = self.start(*arguments)
        time.sleep(moment)
        began = time.monotonic()
        if process.poll() is None:
            if number == signal.SIGINT:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        try:
            told, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
        took = time.monotonic() - began
        outcome = self.outcome(process.returncode, number, moment, told)
        tally.trials += 1
        tally.outcomes[outcome.split(":")[0]] += 1
        tally.longest = max(tally.longest, took)
        where = f"{self.name}, {number.name} after {moment:.2f} s"
        if outcome.startswith("miss"):
            tally.misses.append(f"{where}: {outcome}\n{told[-2000:]}")
        if took > LIMIT:
            tally.misses.append(f"{where}: it took {took:.1f} s")
        if left := list(processes_of(process.pid)):
            tally.misses.append(f"{where}: processes {left} are left")
        return outcome

    def outcome(self, code: int, number: signal.Signals, moment: float, told: str) -> str:
        """Name what became of a process."""
        if code == CODES[number]:
            wrong = "Traceback" in told or told.count("ronghe: stopped") != 1
            return "miss: not one line" if wrong else "stopped"
        if code == 0:
            return "done before"
        first = re.compile(r"orchestration/(commands/start|interruption)\.py")  # no handler yet
        started = "orchestration/" in first.sub("", told)
        if moment < EARLY and not started and code in (1, -number):
            return "too early"
        return f"miss: exit status {code}"

    def leftovers(self) -> list[str]:
        """What is left in the places that a command writes to."""
        there = [each.name for each in self.temporary.iterdir()]
        found = [each for each in there if not each.startswith("torchinductor")]  # torch's own
        return found + sorted(set(semaphores()) - self.semaphores)


class Merges(Trials):
    """`ronghe merge` of three small models."""

    name = "merge"

    def __init__(self, work: Path, chance: random.Random) -> None:
        super().__init__(work, chance)
        family = factory.write_family(work / "models", SHAPE, experts=2)
        self.recipe = work / "recipe.yaml"
        self.recipe.write_text(RECIPE.format(family.base, *family.experts), encoding="utf-8")
        self.out = work / "outputs" / "merged"
        began = time.monotonic()
        self.finish("merge", str(self.recipe), str(self.out))
        self.life = time.monotonic() - began
        self.expected = digest_of(self.out)
        shutil.rmtree(self.out)

    def run(self, number: signal.Signals, count: int, tally: Tally) -> None:
        """So many trials."""
        for trial in range(count):
            outcome = self.trial(number, tally, "merge", str(self.recipe), str(self.out))
            where = f"{self.name}, {number.name}, trial {trial}"
            if self.out.exists() and digest_of(self.out) != self.expected:
                tally.misses.append(f"{where}: a half output ({outcome})")
            shutil.rmtree(self.out, ignore_errors=True)
            self.finish("merge", "--no-verify", str(self.recipe), str(self.out))
            if digest_of(self.out) != self.expected:
                tally.misses.append(f"{where}: the next merge is another one")
            beside = [each.name for each in self.out.parent.iterdir() if each != self.out]
            if left := [*beside, *self.leftovers()]:
                tally.misses.append(f"{where}: left {left} ({outcome})")
            shutil.rmtree(self.out)


class Refreshes(Trials):
    """`ronghe refresh` of a catalog of tiny models with a tiny suite."""

    name = "refresh"

    def __init__(self, work: Path, chance: random.Random) -> None:
        super().__init__(work, chance)
        self.count = 0
        self.project = self.fresh()
        began = time.monotonic()
        self.finish("refresh")
        self.life = time.monotonic() - began
        self.expected = names_of(self.project)

    def environment(self) -> Mapping[str, str]:
        """Variables of the command, with those of the project."""
        return {**super().environment(), **self.project.environment}

    def fresh(self) -> TinyProject:
        """A project that nothing was made of yet."""
        self.count += 1
        self.project = make_project(
            self.work / f"project{self.count}",
            {"task_arithmetic": TASK_ARITHMETIC, "slerp": SLERP},
            experts=2,
            shape=TINY,
        )
        return self.project

    def run(self, number: signal.Signals, count: int, tally: Tally) -> None:
        """So many trials; every few of them the refresh is let run to its end."""
        for trial in range(count):
            if trial % STOPS_IN_A_ROW == 0:
                shutil.rmtree(self.project.root)
                self.fresh()
            self.trial(number, tally, "refresh")
            where = f"{self.name}, {number.name}, trial {trial}"
            if standing := runs_in_progress(self.project):
                tally.misses.append(f"{where}: runs {standing} count as in progress")
            if trial % STOPS_IN_A_ROW == STOPS_IN_A_ROW - 1 or trial == count - 1:
                self.finish("refresh")
                if names_of(self.project) != self.expected:
                    tally.misses.append(f"{where}: the next refresh made something else")
                self.finish("gc", "--grace", "0s")
                if left := self.leftovers():
                    tally.misses.append(f"{where}: left {left}")


def digest_of(folder: Path) -> str:
    """The content of a folder."""
    hasher = blake3()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        hasher.update(str(path.relative_to(folder)).encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def names_of(project: TinyProject) -> dict[str, str]:
    """What the names in the project's store point to."""
    refs = (project.root / "store" / "refs").rglob("*.json")
    named = {each.relative_to(project.root / "store" / "refs"): each for each in refs}
    found: dict[str, str] = {}
    for name, path in named.items():
        if not TELLS_TIMES & set(name.parts):
            history = json.loads(path.read_text(encoding="utf-8"))["history"]
            found["/".join(name.parts[1:])] = history[-1]["digest"]  # without the catalog's own id
    return found


def runs_in_progress(project: TinyProject) -> list[str]:
    """Runs of Dagster that nobody works at, and that count as in progress all the same."""
    import dagster as dg

    from orchestration.refreshing.instance import open_instance
    from orchestration.refreshing.lock import UNFINISHED

    with open_instance(project.settings()) as instance:
        runs = instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED))
        return [f"{run.run_id} ({run.status.value})" for run in runs]


def processes_of(session: int) -> Iterator[str]:
    """The living processes of a session."""
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        tracker = b"resource_tracker" in command  # it ends by itself, when all others have
        mine = folder.name.isdigit() and fields[3] == str(session) and fields[0] != "Z"
        if mine and not tracker:
            yield folder.name


def semaphores() -> list[str]:
    """Semaphores in /dev/shm."""
    folder = Path("/dev/shm")
    return [each.name for each in folder.glob("sem.mp-*")] if folder.is_dir() else []


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=60, help="Of each kind and command.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("merge", "refresh"))
    parser.add_argument("--work", type=Path, help="Where the projects are made.")
    arguments = parser.parse_args()
    # a shell's background job ignores SIGINT, and so would what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chance = random.Random(arguments.seed)
    rows: list[str] = []
    misses: list[str] = []
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="signals-", dir=arguments.work) as folder:
        for kind in (Merges, Refreshes):
            if arguments.only not in (None, kind.name):
                continue
            trials = kind(Path(folder) / kind.name, chance)
            for number in CODES:
                tally = Tally()
                trials.run(number, arguments.signals, tally)
                rows.append(tally.row(f"{kind.name}, {number.name}"))
                misses += tally.misses
                print(rows[-1], *tally.misses, sep="\nmiss: ", flush=True)
    print("\n| command, signal | trials | stopped | done before | too early | longest | misses |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print("\n".join(rows))
    raise SystemExit(1 if misses else 0)


if __name__ == "__main__":
    main()

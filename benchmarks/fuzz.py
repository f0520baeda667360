"""A million spoiled files, read by the public readers: an error of ours or success, nothing else.

    python -m benchmarks.fuzz [--cases 1000000] [--seed 0] [--workers 2]
    python -m benchmarks.fuzz --folders --cases 100000   # whole model folders, merged and loaded
    python -m benchmarks.fuzz --folders --from 40000     # the rest of a run that was stopped there
    python -m benchmarks.fuzz --seed 0 --only 12345      # one case again, with its traceback

Headers, indexes, configs, adapters, tokenizers, masks, whole plans, manifests, refs and recipes are
made from right ones by seeded changes of structure, text and bytes (tests/models/spoiling.py). With
`--folders` they are models on disk: configs, tensors, side files and indexes are drawn
(tests/models/folder_cases.py), and what is merged must load in transformers with no weight missing.
Each case has five seconds (five minutes with `--folders`, whose child may have to start anew), each
worker 1 GiB beyond what it starts with, and no case may open a file outside its folder. A worker
that stops counting for twelve times as long is killed, and its case is a find. Finds are printed as
they come, and a line for every 1,000 cases says how they ended: a run may be stopped and go on
`--from` the last line, and the lines add up to what one run counts.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import Empty

from tests.attacks.fuzz_targets import Target
from tests.attacks.fuzzing import Find, Tally, guarded, run_case, target_of

MEMORY = 1 << 30
CASE_SECONDS = 5.0  # on the machine of whoever looks; the tests only look for hangs
FOLDER_SECONDS = 300.0  # a busy machine may take one for the child to import transformers
STUCK = 12  # times as long without a case done, once the worker has begun
EVERY = 1000
MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class Run:
    """Which cases are run, and how."""

    seed: int
    start: int
    cases: int
    workers: int
    folders: bool

    @property
    def pieces(self) -> list[range]:
        """All cases, a thousand at a time."""
        ends = range(self.start, self.cases, EVERY)
        return [range(first, min(first + EVERY, self.cases)) for first in ends]

    @property
    def seconds(self) -> float:
        """The bound of a case."""
        return FOLDER_SECONDS if self.folders else CASE_SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="the number after the last")
    parser.add_argument("--from", type=int, default=0, dest="start", help="the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int)
    parser.add_argument("--folders", action="store_true")
    given = parser.parse_args()
    # What is computed is tiny; the workers and their children have it before they import torch.
    os.environ["OMP_NUM_THREADS"] = "1"
    run = Run(given.seed, given.start, given.cases, given.workers, given.folders)
    if given.only is not None:
        _again(run, given.only)
        return
    started = time.perf_counter()
    pieces: list[Piece] = []
    try:
        failed = _run(run, pieces)
    finally:  # also where somebody pressed Ctrl-C
        _report(pieces, time.perf_counter() - started)
    if failed or any(piece.tally.finds for piece in pieces):
        raise SystemExit(1)


def _again(run: Run, number: int) -> None:
    only = _only(run.folders)
    with tempfile.TemporaryDirectory() as folder, guarded(MEMORY):
        name, outcome = run_case(run.seed, number, Path(folder), run.seconds, only)
    print(f"{name} {number}: {outcome.what if isinstance(outcome, Find) else outcome}")


@dataclass(frozen=True)
class Piece:
    """What one worker did of a thousand cases.

    `grown` is how much its resident memory had grown by then, bytes; `cpu` are CPU seconds.
    """

    first: int
    tally: Tally
    grown: int = 0
    cpu: float = 0.0


def _only(folders: bool) -> "tuple[str, Target] | None":
    """The one target of a run with `--folders`, ready for its bounds."""
    if not folders:
        return None
    from tests.attacks import folder_fuzz

    folder_fuzz.prepare()
    return folder_fuzz.TARGET


def _run(run: Run, pieces: list[Piece]) -> bool:
    """Run all cases, append what was done as it is done, and return whether a worker was lost."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    counters = [context.Value("q", -1) for _ in range(run.workers)]
    processes = [
        context.Process(target=_work, args=(run, w, counters[w], answers), daemon=True)
        for w in range(run.workers)
    ]
    for process in processes:
        process.start()
    seen = [(-1, time.monotonic())] * run.workers
    over: set[int] = set()
    lost = False
    while len(over) < run.workers:
        with suppress(Empty):
            _take(answers.get(timeout=1), run, pieces)
        for w, process in enumerate(processes):
            count, since = seen[w]
            now = counters[w].value
            if w in over or now != count or now < 0:
                seen[w] = (now, time.monotonic())
            elif process.is_alive() and time.monotonic() - since > STUCK * run.seconds:
                process.kill()
                lost = True
                _take(_lost(run, now, "hangs where no signal reaches"), run, pieces)
            if not process.is_alive() and w not in over:
                over.add(w)
                if process.exitcode not in (0, -9):
                    lost = True
                    _take(_lost(run, now, f"ended with {process.exitcode}"), run, pieces)
    while not answers.empty():
        _take(answers.get(), run, pieces)
    return lost


def _take(answer: Find | Piece, run: Run, pieces: list[Piece]) -> None:
    """Tell of a find, which will be in a piece, or keep a piece and tell where all have theirs."""
    if isinstance(answer, Find):
        print(f"\nFIND {answer.target} {answer.number}\n{answer.what}", flush=True)
        return
    pieces.append(answer)
    same = [each for each in pieces if each.first == answer.first]
    if len(same) == run.workers:
        counted: Counter[str] = Counter()
        for each in same:
            for outcomes in each.tally.outcomes.values():
                counted.update(outcomes)
        told = ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
        end = min(answer.first + EVERY, run.cases)
        at = time.strftime("%H:%M:%S")
        print(f"{at} cases {answer.first} to {end - 1}: {told}; next --from {end}", flush=True)


def _lost(run: Run, current: int, how: str) -> Find:
    """The find of a worker that is no more: the case at which it was."""
    number = max(current, run.start)
    return Find("folders" if run.folders else target_of(number), number, f"the process {how}")


def _work(
    run: Run,
    worker: int,
    counter: "Synchronized[int]",
    answers: "multiprocessing.Queue[Find | Piece]",
) -> None:
    parent = os.getppid()
    only = _only(run.folders)
    root = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(dir=root) as folder, guarded(MEMORY):
        before = _peak()
        for piece in run.pieces:
            tally, began = Tally(), _cpu()
            for number in piece[worker :: run.workers]:
                if os.getppid() != parent:  # it was killed, and nobody counts any more
                    raise SystemExit(1)
                counter.value = number
                name, outcome = run_case(run.seed, number, Path(folder), run.seconds, only)
                tally.add(name, outcome)
                if isinstance(outcome, Find):
                    answers.put(outcome)
            if run.folders and piece == run.pieces[-1]:
                from tests.attacks import folder_fuzz

                folder_fuzz.child().close()  # its CPU time counts from its end on
            answers.put(Piece(piece.start, tally, _peak() - before, _cpu() - began))


def _cpu() -> float:
    """Seconds that this process took and its children that ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _report(pieces: list[Piece], seconds: float) -> None:
    total: dict[str, Counter[str]] = {}
    for piece in pieces:
        for target, outcomes in piece.tally.outcomes.items():
            total.setdefault(target, Counter()).update(outcomes)
    print("| target | cases | success | errors of ours | finds |\n|---|---|---|---|---|")
    for target, outcomes in total.items():
        ours = {n: c for n, c in outcomes.items() if n not in ("success", "find")}
        told = ", ".join(f"{name} {count}" for name, count in sorted(ours.items()))
        success, finds = outcomes["success"], outcomes["find"]
        print(f"| {target} | {outcomes.total()} | {success} | {told} | {finds} |")
    cases = sum(outcomes.total() for outcomes in total.values())
    work = sum(piece.cpu for piece in pieces)
    growth = max((piece.grown for piece in pieces), default=0)
    rate = cases / max(work, 1e-9)
    print(f"{cases} cases in {seconds:.0f} s; {work:.0f} CPU seconds, {rate:.0f} cases in each;")
    print(f"the peak memory of a worker grew by {growth / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()

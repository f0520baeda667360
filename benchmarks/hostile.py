"""Thousands of attacks on plan, inspect, merge, verify and refresh, each judged from outside.

    python -m benchmarks.hostile [--cases 5000] [--seed 0] [--workers 2] [--limit 60]
    python -m benchmarks.hostile --first 1500 --cases 3500 # the rest of what was begun
    python -m benchmarks.hostile --seed 0 --only 1234      # one case again, with what it printed

Names, links, special files, sizes, nesting, numbers, damaged refs and blocks, signals at random
moments, full disks, odd options (tests/attacks/hostile_attacks.py). A case is a find when the
command ends in a traceback or a status that is not ours, runs longer than `--limit` (after a signal
10 s), takes over 1 GiB beyond what its process began with, prints control characters, hands on a
byte of a file outside the project or of a token in the environment, or says that it merged and the
values differ.

A command is a fork of a process that has imported what is heavy, and so are the limited children
that it starts (tests/child_forks.py); `--started` starts these anew, as users' commands do, for
4 to 5 seconds of CPU time each.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from queue import Empty
from typing import Any

OWNER = "TESTS_OF_RONGHE"  # of tests.child_forks, which a process imports that may have threads
Limits = tuple[float, float]


def main(
    arguments: Sequence[str] | None = None,
    context: SpawnContext | ForkServerContext | None = None,
) -> None:
    """Attack, from processes with one thread that a context starts (default: spawned ones).

    Raises SystemExit with 1 where there was a find, with 0 where there was none.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--stop", type=float, default=10.0, help="seconds after a signal")
    parser.add_argument("--only", type=int)
    parser.add_argument("--verb", help="only this command")
    parser.add_argument("--started", action="store_true", help="no forked children")
    given = parser.parse_args(arguments)
    limits = (given.limit, given.stop)
    context = context or multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        template = Path(folder) / "template"
        if given.started:
            os.environ.pop(OWNER, None)
        else:
            os.environ.setdefault(OWNER, f"{os.getpid()}:{folder}")
        made = context.Process(target=_make, args=(template,))
        made.start()
        made.join()
        if given.only is not None:
            _again(given.seed, given.only, Path(folder), template, limits, given.verb)
            return
        answers = context.Queue()
        workers = [
            context.Process(
                target=_work,
                args=(
                    given.seed,
                    range(given.first + w, given.first + given.cases, given.workers),
                    Path(folder) / f"w{w}",
                    template,
                    limits,
                    given.verb,
                    answers,
                ),
            )
            for w in range(given.workers)
        ]
        for each in workers:
            each.start()
        finds = _report(answers, given.cases, workers)
        for each in workers:
            each.join()
    raise SystemExit(1 if finds else 0)


def _make(template: Path) -> None:
    from tests.attacks.hostile_project import make_template

    make_template(template)


def _prepare() -> None:
    """Import what commands need, in one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from importlib import import_module

    import torch

    for name in (
        "commands.cli",
        "commands.merging.merge_command",
        "commands.refresh_command",
        "definitions",
    ):
        import_module(f"orchestration.{name}")

    torch.set_num_threads(1)
    if OWNER in os.environ:
        from tests.child_forks import fork_children

        fork_children()


def _work(
    seed: int,
    numbers: range,
    place: Path,
    template: Path,
    limits: Limits,
    verb: str | None,
    answers: Any,
) -> None:
    _prepare()
    from tests.attacks.hostile_project import expected
    from tests.attacks.hostile_runs import run_case

    place.mkdir()
    right = expected(template)
    for number in numbers:
        name, told, ended, wrong = run_case(seed, number, place, template, right, limits, verb)
        answers.put((number, name, told, ended.code, ended.seconds, ended.memory, wrong))


def _again(
    seed: int, number: int, place: Path, template: Path, limits: Limits, verb: str | None
) -> None:
    _prepare()
    from tests.attacks.hostile_project import expected
    from tests.attacks.hostile_runs import run_case

    work = place / "again"
    work.mkdir()
    name, told, ended, wrong = run_case(
        seed, number, work, template, expected(template), limits, verb
    )
    print(f"{name}: {told}\nstatus {ended.code}, {ended.seconds:.2f} s, {ended.memory >> 20} MiB")
    print(ended.text[-4000:], "\nfinds:", *wrong, sep="\n")


def _next(answers: Any, workers: Sequence[Any]) -> Any:
    """The next answer; SystemExit where nobody is left to give one."""
    while True:
        with suppress(Empty):
            return answers.get(timeout=5)
        if not any(each.is_alive() for each in workers):
            raise SystemExit("the workers ended before their cases did")


def _report(answers: Any, cases: int, workers: Sequence[Any]) -> int:
    """Print finds as they come, and the table; returns how many there were."""
    table: dict[str, Counter[str]] = {}
    slowest: dict[str, float] = {}
    memory: dict[str, int] = {}
    finds = 0
    for done in range(cases):
        number, name, told, code, seconds, peak, wrong = _next(answers, workers)
        table.setdefault(name, Counter())[str(code)] += 1
        slowest[name] = max(seconds, slowest.get(name, 0))
        memory[name] = max(peak, memory.get(name, 0))
        if wrong:
            finds += 1
            table[name]["finds"] += 1
            print(f"FIND {number} {name}: {told!r}: {'; '.join(wrong)}\n", flush=True)
        if done % 250 == 249:
            print(f"{done + 1} cases, {finds} finds", flush=True)
    print("| command: attack | cases | ended with | finds | slowest, s | most MiB |")
    print("|---|---|---|---|---|---|")
    for name, counts in sorted(table.items()):
        codes = ", ".join(f"{c}: {n}" for c, n in sorted(counts.items()) if c != "finds")
        count = sum(n for c, n in counts.items() if c != "finds")
        row = (name, count, codes, counts["finds"], f"{slowest[name]:.2f}", memory[name] >> 20)
        print("| " + " | ".join(map(str, row)) + " |")
    print(f"{cases} cases, {finds} finds")
    return finds


if __name__ == "__main__":
    main()

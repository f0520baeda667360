"""A million spoiled files, read by the public readers: an error of ours or success, nothing else.

    python -m benchmarks.fuzz [--cases 1000000] [--seed 0] [--workers 2]
    python -m benchmarks.fuzz --folders --cases 100000   # whole model folders, merged and loaded
    python -m benchmarks.fuzz --seed 0 --only 12345      # one case again, with its traceback

Headers, indexes, configs, adapters, tokenizers, masks, whole plans, manifests, refs and recipes are
made from right ones by seeded changes of structure, text and bytes (tests/spoiling.py). With
`--folders` they are models on disk: configs, tensors, side files and indexes are drawn
(tests/folder_cases.py), and what is merged must load in transformers with no weight missing. Each
case has five seconds, each worker 1 GiB beyond what it starts with, and no case may open a file
outside its folder. A worker that stops counting for a minute is killed, and its case is a find.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import Empty

from tests.fuzz_targets import Target
from tests.fuzzing import Find, Tally, guarded, run_case, target_of

MEMORY = 1 << 30
STUCK_SECONDS = 60.0
CASE_SECONDS = 5.0  # on the machine of whoever looks; the tests only look for hangs
MEMORY_FOLDER = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int)
    parser.add_argument("--folders", action="store_true")
    given = parser.parse_args()
    if given.only is not None:
        _again(given.seed, given.only, given.folders)
        return
    started = time.perf_counter()
    tallies = _run(given.seed, given.cases, given.workers, given.folders)
    _report(tallies, time.perf_counter() - started)
    if any(tally.finds for tally, _, _ in tallies):
        raise SystemExit(1)


def _again(seed: int, number: int, folders: bool) -> None:
    only = _only(folders)
    with tempfile.TemporaryDirectory() as folder, guarded(MEMORY):
        name, outcome = run_case(seed, number, Path(folder), CASE_SECONDS, only)
    print(f"{name} {number}: {outcome.what if isinstance(outcome, Find) else outcome}")


Result = tuple[Tally, int, float]  # outcomes, growth of the resident memory in bytes, CPU seconds


def _only(folders: bool) -> "tuple[str, Target] | None":
    """The one target of a run with `--folders`, ready for its bounds."""
    if not folders:
        return None
    from tests import folder_fuzz

    folder_fuzz.prepare()
    return folder_fuzz.TARGET


def _run(seed: int, cases: int, workers: int, folders: bool) -> list[Result]:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    counters = [context.Value("q", -1) for _ in range(workers)]
    processes = [
        context.Process(
            target=_work, args=(seed, range(w, cases, workers), counters[w], answers, folders)
        )
        for w in range(workers)
    ]
    for process in processes:
        process.start()
    results: list[Result] = []
    seen = [(-1, time.monotonic())] * workers
    over: set[int] = set()
    while len(over) < workers:
        with suppress(Empty):
            results.append(answers.get(timeout=5))
        for w, process in enumerate(processes):
            count, since = seen[w]
            now = counters[w].value
            if w in over or now != count:
                seen[w] = (now, time.monotonic())
            elif process.is_alive() and time.monotonic() - since > STUCK_SECONDS:
                process.kill()
                results.append((_lost(now, "hangs where no signal reaches"), 0, 0.0))
            if not process.is_alive() and w not in over:
                over.add(w)
                if process.exitcode not in (0, -9):
                    results.append((_lost(now, f"ended with {process.exitcode}"), 0, 0.0))
    while not answers.empty():
        results.append(answers.get())
    return results


def _lost(number: int, how: str) -> Tally:
    tally = Tally()
    tally.add(target_of(number), Find(target_of(number), number, f"the process {how}"))
    return tally


def _work(
    seed: int,
    numbers: range,
    counter: "Synchronized[int]",
    answers: "multiprocessing.Queue[Result]",
    folders: bool,
) -> None:
    only = _only(folders)
    tally, began = Tally(), time.process_time()
    root = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(dir=root) as folder, guarded(MEMORY):
        before = _peak()
        for number in numbers:
            tally.add(*run_case(seed, number, Path(folder), CASE_SECONDS, only))
            counter.value = number
    answers.put((tally, _peak() - before, time.process_time() - began))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _report(results: list[Result], seconds: float) -> None:
    total: dict[str, Counter[str]] = {}
    for tally, _, _ in results:
        for target, outcomes in tally.outcomes.items():
            total.setdefault(target, Counter()).update(outcomes)
    print("| target | cases | success | errors of ours | finds |\n|---|---|---|---|---|")
    for target, outcomes in total.items():
        ours = {n: c for n, c in outcomes.items() if n not in ("success", "find")}
        told = ", ".join(f"{name} {count}" for name, count in sorted(ours.items()))
        success, finds = outcomes["success"], outcomes["find"]
        print(f"| {target} | {outcomes.total()} | {success} | {told} | {finds} |")
    cases = sum(outcomes.total() for outcomes in total.values())
    work = sum(cpu for _, _, cpu in results)
    growth = max((grown for _, grown, _ in results), default=0)
    rate = cases / max(work, 1e-9)
    print(f"{cases} cases in {seconds:.0f} s; {work:.0f} CPU seconds, {rate:.0f} cases in each;")
    print(f"the peak memory of a worker grew by {growth / 2**20:.0f} MiB")
    finds = [find for tally, _, _ in results for find in tally.finds]
    for find in finds[:50]:
        print(f"\nFIND {find.target} {find.number}\n{find.what}")


if __name__ == "__main__":
    main()

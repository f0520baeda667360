"""Change the product a little, and see whether a test notices: mutation testing of changed lines.

    python -m benchmarks.mutants HEAD~3                      # the lines changed since that commit
    python -m benchmarks.mutants --all merge_ops/recipes/*.py --sample 60
    python -m benchmarks.mutants main --report               # exit code 0 whatever survives

Each mutant is one change (mutation.py) of one file, in a copy of the tree. Its tests are the
nearest: the test file that mirrors the module's path, and those of `ELSEWHERE`; without these the
room's, and else those that import the module by its name. With `--wide` it is all of these, which
takes longer: a second look at what survived the first. They run in a fork of a process that has
imported what is heavy (forked_tests.py). A mutant is killed when a test fails, or when the tests
take `HANG` times as long as they do on the unchanged tree; a survivor is either equivalent, or what
no test guards. Verdicts are kept in `--results`, and asked again only where the module or its tests
have changed.
"""

import argparse
import hashlib
import json
import queue
import random
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.rigs.mutation import Mutant, mutations
from benchmarks.rigs.workshop import BrokenTestsError, Verdict, Workshop

PACKAGES = ("merge_ops", "eval_ops", "resources", "assets", "orchestration")
PRELOAD = (
    "hypothesis", "numpy", "torch", "safetensors.torch", "tokenizers", "transformers",
    "pydantic", "yaml", "pyarrow.parquet", "matplotlib.figure", "datasets", "lm_eval.evaluator",
)  # fmt: skip
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "merge_ops/arrangement": (
        "tests/merge_ops/arrangement/test_slices.py",
        "tests/merge_ops/plans/test_plan.py",
    ),
    "merge_ops/measures": ("tests/merge_ops/methods/test_contract.py",),
    "merge_ops/provenance": ("tests/merge_ops/plans/test_step_plans.py",),
    "merge_ops/errors": ("tests/merge_ops/recipes/test_recipe.py",),
    "eval_ops/faults": (
        "tests/eval_ops/suites/test_suites.py",
        "tests/eval_ops/suites/test_items.py",
        "tests/eval_ops/scores/test_gates.py",
    ),
    "assets/work": ("tests/orchestration/test_definitions.py",),
}
"""Where a room or a module (its path's beginning) is guarded besides its own folder."""
FAR = ("tests/oracle/", "tests/orchestration/", "tests/examples/", "tests/deploy/")
"""Tests that start servers, daemons or other environments: taken only where they mirror a room."""
HANG = 10
"""A mutant hangs when it takes so many times as long as no mutant; a busy machine takes fewer."""


def changed_lines(root: Path, revision: str, packages: Sequence[str]) -> dict[str, set[int]]:
    """Return file → numbers of the lines that are not as in `revision`."""
    command = ["git", "diff", "-U0", "--no-color", "--diff-filter=d", revision, "--", *packages]
    text = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    lines: dict[str, set[int]] = {}
    file = ""
    for line in text.splitlines():
        if line.startswith("+++ b/"):
            file = line.removeprefix("+++ b/")
        elif found := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(found[1]), int(found[2] or 1)
            lines.setdefault(file, set()).update(range(first, first + count))
    return {file: numbers for file, numbers in lines.items() if file.endswith(".py") and numbers}


def nearest_tests(root: Path, file: str, wide: bool = False) -> tuple[str, ...]:
    """Return the test files of a module, nearest first; with `wide` all that may know it."""
    path = Path(file)
    room = sorted((root / "tests" / path.parent).glob("test_*.py"))
    mirrored = [test for test in room if path.stem in test.stem]
    mapped = [
        root / test
        for place, guards in ELSEWHERE.items()
        if path.with_suffix("").is_relative_to(place)
        for test in guards
    ]
    near = [*mirrored, *mapped]
    if wide or not mirrored:
        near += room
    if wide or not near:
        near += _naming(root, path)
    existing = [test.relative_to(root).as_posix() for test in near if test.is_file()]
    return tuple(dict.fromkeys(existing))


def _naming(root: Path, path: Path) -> list[Path]:
    """Return the tests, none of them far, in which the module's dotted name stands."""
    dotted = re.compile(rf"\b{re.escape('.'.join(path.with_suffix('').parts))}\b")
    return [
        test
        for test in sorted((root / "tests").rglob("test_*.py"))
        if not test.relative_to(root).as_posix().startswith(FAR)
        and dotted.search(test.read_text(encoding="utf-8"))
    ]


def mutants_of(
    root: Path, files: Mapping[str, set[int] | None], wide: bool = False
) -> Iterator[Mutant]:
    """Yield the mutants of each file, on the lines given or (None) on all."""
    for file, lines in sorted(files.items()):
        source = (root / file).read_bytes()
        tests = nearest_tests(root, file, wide)
        context = hashlib.sha256(source)
        for test in tests:
            context.update((root / test).read_bytes())
        for change in mutations(source):
            touched = range(change.line, change.last_line + 1)
            if lines is None or not lines.isdisjoint(touched):
                digest = context.copy()
                digest.update(f"{change.start}\0{change.after}".encode())
                yield Mutant(file, change, change.line_after(source), tests, digest.hexdigest())


def judge_all(
    root: Path, waiting: Sequence[Mutant], jobs: int, preload: Sequence[str], results: Path
) -> dict[str, Verdict]:
    """Judge mutants in `jobs` copies of the tree at once, and append each verdict to `results`.

    Where the tests fail without a mutant the verdict is "broken", is said, and is not kept.
    """
    todo: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in waiting:
        todo.put(mutant)
    verdicts: dict[str, Verdict] = {}
    faults: list[BaseException] = []
    lock = threading.Lock()

    def work(number: int, folder: str) -> None:
        workshop = Workshop(root, Path(folder) / str(number), preload)
        usual: dict[tuple[str, ...], float] = {}
        try:
            while not faults:
                try:
                    mutant = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    if mutant.tests not in usual:
                        usual[mutant.tests] = workshop.measure(mutant.tests)
                    verdict = workshop.judge(mutant, HANG * usual[mutant.tests])
                except BrokenTestsError as error:
                    print(f"{mutant}: {error}", file=sys.stderr, flush=True)
                    verdicts[mutant.key] = Verdict(mutant.key, "broken", "", 0.0)
                    continue
                with lock, results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(verdict)) + "\n")
                    verdicts[mutant.key] = verdict
                    if verdict.outcome == "survived":
                        print(f"[{len(verdicts)}/{len(waiting)}] survived: {mutant}", flush=True)
        except BaseException as error:
            faults.append(error)
        finally:
            workshop.close()

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        threads = [
            threading.Thread(target=work, args=(n, folder)) for n in range(min(jobs, len(waiting)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if faults:
        raise faults[0]
    return verdicts


def known_verdicts(results: Path) -> dict[str, Verdict]:
    """Read the verdicts of earlier runs."""
    if not results.exists():
        return {}
    lines = results.read_text(encoding="utf-8").splitlines()
    return {row["key"]: Verdict(**row) for row in map(json.loads, lines)}


def report(mutants: Sequence[Mutant], verdicts: Mapping[str, Verdict]) -> int:
    """Print counts a file and every survivor with the tests that ran; return how many survive."""
    survivors = [m for m in mutants if verdicts[m.key].outcome == "survived"]
    table: dict[str, Counter[str]] = {}
    for mutant in mutants:
        table.setdefault(mutant.file, Counter())[verdicts[mutant.key].outcome] += 1
    for file, counts in table.items():
        texts = [f"{counts[outcome]} {outcome}" for outcome in ("killed", "hung", "survived")]
        texts += [f"{counts['broken']} without tests that pass"] if counts["broken"] else []
        print(f"{file}: {', '.join(texts)}")
    tests: tuple[str, ...] | None = None
    for mutant in survivors:
        if mutant.tests != tests:
            tests = mutant.tests
            print(f"\nsurvived {' '.join(tests) or 'since no test is near'}:")
        print(f"  {mutant}")
    killed = sum(verdicts[mutant.key].outcome in ("killed", "hung") for mutant in mutants)
    print(f"\n{len(mutants)} mutants, {killed} killed, {len(survivors)} survived")
    return len(survivors)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("revision", nargs="?", help="mutate the lines changed since this commit")
    parser.add_argument("--all", nargs="+", default=[], metavar="FILE", help="mutate these whole")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2), help="copies at a time")
    parser.add_argument("--wide", action="store_true", help="against all tests that may know it")
    parser.add_argument("--report", action="store_true", help="exit with 0 also with survivors")
    parser.add_argument("--results", type=Path, help="default: .ronghe/mutants.jsonl")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--preload", nargs="*", default=PRELOAD, metavar="MODULE")
    options = parser.parse_args(arguments)
    if (options.revision is None) == (not options.all):
        parser.error("give a revision, or --all FILE …")
    root: Path = options.root.resolve()
    files: dict[str, set[int] | None] = {
        Path(file).resolve().relative_to(root).as_posix(): None for file in options.all
    }
    if options.revision:
        files |= changed_lines(root, options.revision, options.packages)
    mutants = list(mutants_of(root, files, options.wide))
    if options.sample is not None and options.sample < len(mutants):
        chosen = random.Random(options.seed).sample(range(len(mutants)), options.sample)
        mutants = [mutants[place] for place in sorted(chosen)]
    results: Path = options.results or root / ".ronghe" / "mutants.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    verdicts = known_verdicts(results)
    # Without a test nothing needs to be run to know what becomes of a mutant.
    verdicts |= {m.key: Verdict(m.key, "survived", "", 0.0) for m in mutants if not m.tests}
    waiting = [mutant for mutant in mutants if mutant.key not in verdicts]
    print(f"{len(mutants)} mutants, {len(mutants) - len(waiting)} of them known", flush=True)
    verdicts |= judge_all(root, waiting, options.jobs, options.preload, results)
    survived = report(mutants, verdicts)
    if any(verdicts[mutant.key].outcome == "broken" for mutant in mutants):
        return 2
    return 1 if survived and not options.report else 0


if __name__ == "__main__":
    sys.exit(main())

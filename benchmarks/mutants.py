"""Change the product a little, and see whether a test notices: mutation testing of changed lines.

    python -m benchmarks.mutants HEAD~3                      # the lines changed since that commit
    python -m benchmarks.mutants --all merge_ops/recipes/*.py --sample 60
    python -m benchmarks.mutants main --report               # exit code 0 whatever survives

Each mutant is one change (mutation.py) of one file, in a copy of the tree. Its tests are the
nearest: the test file that mirrors the module's path, the others of that room, those that import
the module by its name, and those of `ELSEWHERE`. They run in a fork of a process that has imported
what is heavy (forked_tests.py). A mutant is killed when a test fails, or when the tests take `HANG`
times as long as they do on the unchanged tree; a survivor is either equivalent, or what no test
guards. Verdicts are kept in `--results` and asked again only where the module or its tests change.
"""

import argparse
import hashlib
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.mutation import Mutation, mutations

PACKAGES = ("merge_ops", "eval_ops", "resources", "assets", "orchestration")
PRELOAD = (
    "xdist", "hypothesis", "numpy", "torch", "safetensors.torch", "tokenizers", "transformers",
    "pydantic", "yaml", "pyarrow.parquet", "matplotlib.figure", "datasets", "lm_eval.evaluator",
)  # fmt: skip
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "merge_ops/checkpoints": ("tests/test_fuzz.py",),
    "merge_ops/measures": ("tests/merge_ops/methods/test_contract.py",),
    "merge_ops/provenance": ("tests/merge_ops/plans/test_stages.py",),
    "assets/work": ("tests/orchestration/test_definitions.py",),
}
"""Where a room is guarded besides its own folder."""
FAR = ("tests/oracle/", "tests/orchestration/", "tests/examples/", "tests/deploy/")
"""Tests that start servers, daemons or other environments: taken only where they mirror a room."""
HANG = 10
"""A mutant hangs when it takes so many times as long as no mutant; a busy machine takes fewer."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file, and the tests to run.

    `line` is what the line reads with the change; `key` names the change, the file and the tests.
    """

    file: str
    change: Mutation
    line: str
    tests: tuple[str, ...]
    key: str

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.change.before, self.change.after))
        return f"{self.file}:{self.change.line}: {before} → {after}   in   {self.line}"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: "killed", "hung" or "survived", and the test that failed."""

    key: str
    outcome: str
    by: str
    seconds: float


class BrokenTestsError(Exception):
    """Tests fail, or are not there, without any mutant."""


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


def nearest_tests(root: Path, file: str) -> tuple[str, ...]:
    """Return the test files of a module, nearest first."""
    path = Path(file)
    room = root / "tests" / path.parent
    own = sorted(room.glob("test_*.py"))
    mirrored = [test for test in own if path.stem in test.stem]
    dotted = re.compile(rf"\b{re.escape('.'.join(path.with_suffix('').parts))}\b")
    naming = [
        test
        for test in sorted((root / "tests").rglob("test_*.py"))
        if not test.relative_to(root).as_posix().startswith(FAR)
        and dotted.search(test.read_text(encoding="utf-8"))
    ]
    mapped = [root / test for test in ELSEWHERE.get(path.parent.as_posix(), ())]
    tests = [test for test in (*mirrored, *own, *naming, *mapped) if test.is_file()]
    return tuple(dict.fromkeys(test.relative_to(root).as_posix() for test in tests))


def mutants_of(root: Path, files: Mapping[str, set[int] | None]) -> Iterator[Mutant]:
    """Yield the mutants of each file, on the lines given or (None) on all."""
    for file, lines in sorted(files.items()):
        source = (root / file).read_bytes()
        tests = nearest_tests(root, file)
        context = hashlib.sha256(source)
        for test in tests:
            context.update((root / test).read_bytes())
        for change in mutations(source):
            touched = range(change.line, change.last_line + 1)
            if lines is None or not lines.isdisjoint(touched):
                digest = context.copy()
                digest.update(f"{change.start}\0{change.after}".encode())
                yield Mutant(file, change, change.line_after(source), tests, digest.hexdigest())


class Workshop:
    """A copy of the tree, and a process that runs tests in it."""

    def __init__(self, root: Path, folder: Path, preload: Sequence[str]) -> None:
        self._folder = folder
        _copy_tree(root, folder)
        self._changes = 0
        program = Path(__file__).with_name("forked_tests.py")
        environment = {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the unchanged tree is compiled once
        self._server = subprocess.Popen(
            [sys.executable, str(program), str(folder), *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def measure(self, tests: Sequence[str]) -> float:
        """Return the seconds that tests take unchanged. BrokenTestsError where they fail."""
        self._run(tests, None, False)  # compiles
        answer = self._run(tests, None, False)
        if answer["code"] != 0:
            raise BrokenTestsError(f"these tests fail without a mutant:\n{answer['output']}")
        return answer["seconds"]

    def judge(self, mutant: Mutant, bound: float) -> Verdict:
        """Make the change, run the mutant's tests, and put the file back as it was."""
        path = self._folder / mutant.file
        source, times = path.read_bytes(), path.stat()
        path.write_bytes(mutant.change.apply(source))
        self._changes += 1  # a time of its own, so that no bytecode is taken for this source's
        os.utime(path, (times.st_atime, times.st_mtime + 10 * self._changes))
        try:
            answer = self._run(mutant.tests, bound, True)
        finally:
            path.write_bytes(source)
            os.utime(path, (times.st_atime, times.st_mtime))
        code = answer["code"]
        if code == 5:
            raise BrokenTestsError(f"{mutant.file}: no test was found in {mutant.tests}")
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", answer["output"], re.MULTILINE)
        outcome = {0: "survived", "hung": "hung"}.get(code, "killed")
        return Verdict(mutant.key, outcome, failed[0] if failed else "", answer["seconds"])

    def close(self) -> None:
        """End the process."""
        self._server.communicate()

    def _run(self, tests: Sequence[str], bound: float | None, changed: bool) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {"tests": list(tests), "bound": bound, "changed": changed}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise BrokenTestsError("the process that runs the tests ended")
        return json.loads(line)


def _copy_tree(root: Path, folder: Path) -> None:
    """Copy what git tracks or would add, and the compiled loops, with their times."""
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    names = [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]
    built = [path.relative_to(root) for path in root.glob("*/**/*.so") if ".venv" not in str(path)]
    for name in (*names, *built):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)


def judge_all(
    root: Path, waiting: Sequence[Mutant], jobs: int, preload: Sequence[str], results: Path
) -> dict[str, Verdict]:
    """Judge mutants in `jobs` copies of the tree at once, and append each verdict to `results`."""
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
                if mutant.tests not in usual:
                    usual[mutant.tests] = workshop.measure(mutant.tests)
                verdict = workshop.judge(mutant, HANG * usual[mutant.tests])
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
        threads = [threading.Thread(target=work, args=(n, folder)) for n in range(jobs)]
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
        print(f"{file}: {', '.join(texts)}")
    tests: tuple[str, ...] = ()
    for mutant in survivors:
        if mutant.tests != tests:
            tests = mutant.tests
            print(f"\nsurvived {' '.join(tests) or 'because no test is near'}:")
        print(f"  {mutant}")
    killed = len(mutants) - len(survivors)
    print(f"\n{len(mutants)} mutants, {killed} killed, {len(survivors)} survived")
    return len(survivors)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("revision", nargs="?", help="mutate the lines changed since this commit")
    parser.add_argument("--all", nargs="+", default=[], metavar="FILE", help="mutate these whole")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2), help="copies at a time")
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
    mutants = list(mutants_of(root, files))
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
    try:
        verdicts |= judge_all(root, waiting, options.jobs, options.preload, results)
    except BrokenTestsError as error:
        print(error, file=sys.stderr)
        return 2
    survived = report(mutants, verdicts)
    return 1 if survived and not options.report else 0


if __name__ == "__main__":
    sys.exit(main())

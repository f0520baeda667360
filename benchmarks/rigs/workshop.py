"""A copy of the tree in which mutants are made and judged, one at a time."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rigs.mutation import Mutant


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant (killed, hung, survived or broken), and the test that failed."""

    key: str
    outcome: str
    by: str
    seconds: float


class BrokenTestsError(Exception):
    """Tests fail, or are not there, without any mutant."""


class Workshop:
    """A copy of the tree, and a process that runs tests in it."""

    def __init__(self, root: Path, folder: Path, preload: Sequence[str]) -> None:
        self._folder = folder
        _copy_tree(root, folder)
        self._changes = 0
        self._broken: set[tuple[str, ...]] = set()
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
        if tuple(tests) in self._broken:
            raise BrokenTestsError("its tests fail without a mutant, as above")
        self._run(tests, None, False)  # compiles
        answer = self._run(tests, None, False)
        if answer["code"] != 0:
            self._broken.add(tuple(tests))
            raise BrokenTestsError(f"its tests fail without a mutant:\n{answer['output']}")
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

"""Runs pytest again and again in forks of one process that has imported what is heavy.

    python benchmarks/rigs/forked_tests.py FOLDER MODULE MODULE …

reads one JSON object a line on standard input, `{"tests": […], "bound": seconds or null,
"changed": true}`, and answers each with one line, `{"code": …, "seconds": …, "output": …}`.
`code` is pytest's exit code, "hung" where the run was stopped at `bound`, or minus a signal.
The product's own modules are not imported before the fork, so a file changed in FOLDER counts.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

OUTPUT = 3000  # bytes of a run's output that are handed back: its end names the test that failed


def serve(folder: str, preload: list[str]) -> None:
    """Answer jobs until standard input ends."""
    os.chdir(folder)
    sys.path[0] = folder
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in ("pytest", *preload):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        for line in sys.stdin:
            answers.write(json.dumps(run(json.loads(line))) + "\n")
            answers.flush()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run the tests of one job in a fork, and end whatever that left behind."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        output = Path(scratch) / "output"
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _become_pytest(job, scratch, output)
        watch = os.pidfd_open(child)
        ended, _, _ = select.select([watch], [], [], job["bound"])
        seconds = time.monotonic() - began
        with contextlib.suppress(ProcessLookupError):  # its group, with servers that tests started
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(watch)
        code = os.waitstatus_to_exitcode(status) if ended else "hung"
        text = output.read_bytes()[-OUTPUT:].decode(errors="replace") if output.exists() else ""
    return {"code": code, "seconds": seconds, "output": text}


def _become_pytest(job: dict[str, Any], scratch: str, output: Path) -> None:
    """Never returns. A changed source leaves no bytecode: the next has its size and its second."""
    code = 3
    try:
        os.setsid()
        target = os.open(output, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(target, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{scratch}/hypothesis"
        os.environ["PYTHONPATH"] = os.getcwd()
        if job["changed"]:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={scratch}/tests"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins imported before
        if "hypothesis" in sys.modules:
            options.append("--hypothesis-seed=0")
        code = int(pytest.main([*options, *job["tests"]]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])

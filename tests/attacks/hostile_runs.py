"""One attack on one command, in a fork of this process, watched from outside and judged.

The process that forks has imported what is heavy, so a case costs what the command does. It must
have one thread.
"""

import ctypes
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.attacks.hostile_attacks import SECRET, draw_attack
from tests.attacks.hostile_project import TOKEN, Case, copy_template, wrong_values

CODES = (0, 1, 2, 129, 130, 143)
MEMORY = 1 << 30
"""Bytes that a command on tiny models may take beyond what its process began with."""
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|panicked at|Segmentation fault")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, seconds, most bytes of memory, and what it printed."""

    code: int
    seconds: float
    memory: int
    text: str
    hung: bool = False


@dataclass
class Tally:
    """Outcomes by attack and command, and what went wrong."""

    outcomes: dict[str, Counter[int]] = field(default_factory=dict[str, Counter[int]])
    finds: list[str] = field(default_factory=list[str])


def run_case(
    seed: int,
    number: int,
    place: Path,
    template: Path,
    right: Mapping[str, np.ndarray],
    limits: tuple[float, float],
    only: str | None = None,
) -> tuple[str, str, Ended, list[str]]:
    """Run one case below `place`; returns what was done, to what, how it ended, what is wrong.

    `limits` are the seconds that a command has, and those after a signal.
    """
    rng = random.Random(seed << 40 | number)
    name, attack, verb = draw_attack(rng)
    verb = only or verb
    root = place / f"case-{number}"
    secret = place / "outside" / "secret.txt"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text(SECRET)
    copy_template(template, root, verb)
    case = Case(root, verb, rng, secret)
    try:
        told = attack(case)
        ended = _watched(case, limits)
        wrong = list(_wrong(case, ended, right))
        return f"{verb}: {name}", told, ended, wrong
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _watched(case: Case, limits: tuple[float, float]) -> Ended:
    output = case.root / "printed"
    child = os.fork()
    if child == 0:
        _become_command(case, output)
    began, peak, stopped, hung = time.monotonic(), 0, None, False
    ready, children = case.root / "ready", case.root / "children"
    floor = _anonymous([os.getpid()], None)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(min(0.05, max(0.005, (time.monotonic() - began) / 20)))  # a look costs 0.2 ms
        now = time.monotonic()
        peak = max(peak, _anonymous([child], _noted(children)) - floor)
        if case.stop and stopped is None and ready.exists() and now - began > case.stop[1]:
            os.kill(child, case.stop[0])
            stopped = now
        bound = limits[1] if stopped else limits[0]
        if now - (stopped or began) > bound or peak > 2 * MEMORY:
            hung = True
            break
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, time.monotonic() - began, peak, text, hung)


def _note_children(path: Path) -> None:
    """Write down the limited children of this process: forked ones are children of another."""
    from merge_ops.children import limited_child

    start = limited_child.start_program

    def noted(*given: Any) -> Any:
        child = start(*given)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{child.pid}\n")
        return child

    limited_child.start_program = noted


def _noted(children: Path) -> list[int]:
    try:
        return [int(line) for line in children.read_text("utf-8").splitlines()]
    except (FileNotFoundError, ValueError):  # none yet, or a line is being written
        return []


def _anonymous(family: list[int], noted: Sequence[int] | None) -> int:
    """Anonymous bytes of processes and their children: what they hold beside shared files.

    Of the `noted` children it is what is theirs alone: forks of one template share what that has
    imported. Where `noted` is None, children do not count.
    """
    whole = sum(_of_lines(f"/proc/{each}/smaps_rollup", "Pss_Anon") for each in noted or ())
    for each in family:
        whole += _of_lines(f"/proc/{each}/status", "RssAnon")
        with suppress(OSError):
            for thread in () if noted is None else Path(f"/proc/{each}/task").iterdir():
                found = map(int, (thread / "children").read_text().split())
                family += [one for one in found if one not in (*family, *(noted or ()))]
    return whole * 1024


def _of_lines(path: str, name: str) -> int:
    """The number of a line of /proc; 0 where the process is gone."""
    with suppress(OSError):
        lines = Path(path).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(name))
    return 0


def _become_command(case: Case, output: Path) -> None:
    """Never returns: the rest of this process is `ronghe`."""
    code = 70
    try:
        os.setsid()
        target = os.open(output, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(target, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        variables = case.environment()
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(case.root)
        from orchestration.commands.start import main

        if case.disk is not None and not _small_disk(case.root / "results", case.disk):
            os._exit(2)
        sys.argv = ["ronghe", *case.command()]
        _note_children(case.root / "children")
        (case.root / "ready").touch()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def _small_disk(folder: Path, size: int) -> bool:
    """Mount a disk of `size` bytes on a folder, for this process alone; False where one may not."""
    library = ctypes.CDLL(None, use_errno=True)
    flags = _CLONE_NEWNS | (_CLONE_NEWUSER if os.getuid() else 0)
    if library.unshare(flags):
        return False
    library.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None)  # private, all of it
    return library.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()) == 0


def _wrong(case: Case, ended: Ended, right: Mapping[str, np.ndarray]):
    """What must never be."""
    end = ended.text[-1500:]
    if ended.hung:
        yield f"hangs or takes all memory: {ended.seconds:.1f} s, {ended.memory >> 20} MiB\n{end}"
        return
    if ended.code not in CODES:
        yield f"ended with {ended.code}\n{end}"
    if _TRACEBACK.search(ended.text):
        yield f"a traceback, status {ended.code}\n{end}"
    if ended.memory > MEMORY:
        yield f"{ended.memory >> 20} MiB"
    if _CONTROL.search(ended.text):
        yield f"control characters are printed: {end[-300:]!r}"
    if ended.code not in (0, 129, 130, 143) and not ended.text.strip():
        yield f"status {ended.code} without a word"
    yield from _leaks(case, ended)
    if case.verb == "merge" and case.disk is None:
        yield from _wrong_output(case, ended, right)


def _leaks(case: Case, ended: Ended):
    """Bytes from outside, in what was printed or written."""
    if TOKEN in ended.text:
        yield "the secret is printed"
    for folder in ("results", "store", "tmp", "dagster", "home"):
        for path in (case.root / folder).rglob("*"):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > 64 << 20:
                continue
            if TOKEN.encode() in path.read_bytes():
                yield f"the secret is in {path.relative_to(case.root)}"


def _wrong_output(case: Case, ended: Ended, right: Mapping[str, np.ndarray]):
    left = [
        each
        for each in case.output.parent.glob("*")
        if os.fsencode(each.name) != os.fsencode(case.output.name)
    ]
    if ended.code == 0:
        if not case.output.is_dir():
            yield "status 0, and no output"
        elif case.sound and (different := wrong_values(case.output, right)):
            yield f"status 0, and {different}"
    elif case.output.exists():
        # a signal may come when the output is whole and in its place, before the process is gone
        stopped = case.stop is not None and ended.code in (129, 130, 143)
        different = wrong_values(case.output, right) if stopped else "an output is there"
        if different:
            yield f"status {ended.code}, and {different}"
    if left and case.stop is None:
        yield f"left beside the output: {[each.name[:60] for each in left]}"

"""Running fuzz cases: what counts as a find, under which bounds, and how a case is made again.

A case is (target, seed, number) and nothing else. It is a find when it ends in anything but success
or an error of ours, hangs (or takes memory beyond the process's limit), opens a file outside its
folder, or has a message that cannot be printed or fills a screen.
"""

import os
import random
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from eval_ops.errors import EvalError
from merge_ops.errors import RongheError
from resources.errors import ResourceError
from tests.attacks.fuzz_targets import SHARES, Target
from tests.merges.merging import ROOT

OURS = (RongheError, ResourceError, EvalError)
HANG_SECONDS = 120.0
"""For one case, of which a thousand take a second: longer is a hang, however slow the machine."""
LONGEST_MESSAGE = 20_000
_OF_THE_MACHINE = ("/proc/mounts", "/proc/self/", "/sys/fs/cgroup/")
"""What tells how much memory and how many cores there are."""
_OPENING = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.link"}


class Hang(BaseException):
    """A case took too long. No `except Exception` may swallow it."""


@dataclass(frozen=True)
class Find:
    """A case that went wrong, and how."""

    target: str
    number: int
    what: str


@dataclass
class Tally:
    """Outcomes by target: `success`, or the name of an error of ours."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    finds: list[Find] = field(default_factory=list)

    def add(self, target: str, outcome: "str | Find") -> None:
        counted = self.outcomes.setdefault(target, Counter())
        if isinstance(outcome, Find):
            self.finds.append(outcome)
            counted["find"] += 1
        else:
            counted[outcome] += 1


SCHEDULE = tuple(name for name, (_, share) in SHARES.items() for _ in range(share))


def target_of(number: int) -> str:
    """Which target a case is for: the shares, in turn."""
    return SCHEDULE[number * 37 % len(SCHEDULE)]


def run_case(
    seed: int,
    number: int,
    folder: Path,
    seconds: float = HANG_SECONDS,
    only: tuple[str, Target] | None = None,
) -> tuple[str, str | Find]:
    """One case: its target, and an outcome or a find; more than `seconds` is one.

    With `only` all cases are for that target.
    """
    name, target = only or (target_of(number), SHARES[target_of(number)][0])
    rng = random.Random(seed << 40 | number)
    _watch.outside = None
    _watch.root = str(folder)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        outcome = _outcome(target, rng, folder)
    except (Exception, Hang) as error:  # whatever is not ours is what we look for
        outcome = Find(name, number, "".join(traceback.format_exception(error))[-3000:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _watch.root = None
    if _watch.outside is not None and not isinstance(outcome, Find):
        # of a case that went wrong otherwise, what ends its child opens that child's own files
        outcome = Find(name, number, f"opened {_watch.outside!r}, outside its folder")
    return name, outcome


def _outcome(target: Target, rng: random.Random, folder: Path) -> str:
    try:
        target(rng, folder)
    except OURS as error:
        text = str(error)
        text.encode()
        if not text or len(text) > LONGEST_MESSAGE:
            raise AssertionError(f"a message of {len(text)} characters: {text[:300]}") from error
        return type(error).__name__
    return "success"


class _Watch:
    """What the audit hook saw; a hook cannot be taken away again."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.outside: str | None = None
        self.added = False

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.root is None or event not in _OPENING or not arguments:
            return
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike):
            return
        whole = os.path.abspath(path)
        package = event == "os.listdir" and (
            whole in sys.path or os.path.exists(os.path.join(whole, "__init__.py"))
        )
        # rules that a package brings along (licences.yaml) are read like a module, once
        module = package or whole.endswith((".py", ".pyc", "__pycache__", ".yaml"))
        imported = whole.startswith(str(ROOT)) and module
        allowed = (self.root, sys.prefix, sys.base_prefix, *_OF_THE_MACHINE)
        if not imported and not whole.startswith(allowed):
            self.outside = whole


_watch = _Watch()


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise Hang("the case took too long")


@contextmanager
def guarded(memory: int | None = None) -> Iterator[None]:
    """The bounds of every case; `memory` is what the process may take beyond what it has, bytes."""
    if not _watch.added:
        sys.addaudithook(_watch.hook)
        _watch.added = True
    before, limits = (
        signal.signal(signal.SIGALRM, _too_long),
        resource.getrlimit(resource.RLIMIT_AS),
    )
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)

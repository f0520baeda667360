"""What a machine has for Ronghe, what it lacks, and what to do about that: nothing is changed."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.commands.extras import EXTRAS
from orchestration.commands.store_tables import size_text
from orchestration.settings import first_set

if TYPE_CHECKING:
    from orchestration.settings import Settings

COLUMNS = ("what", "here", "if you need it")
TESTED = (3, 11)
LITTLE_DISK = 20_000_000_000
"""Bytes: a model of 7 B parameters in bfloat16 and a little more."""
FEW_FILES = 1024
"""Open files: the usual limit, which is enough; one below it may not be."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SCOPE_TOKENS = ("MODELSCOPE_API_TOKEN", "MODELSCOPE_ACCESS_TOKEN")
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


@dataclass(frozen=True)
class MachineFact:
    """A machine fact says what is here of something, and where it is missing what to do."""

    what: str
    here: str
    advice: str = ""

    @property
    def row(self) -> tuple[str, str, str]:
        """The fact as a row of a table."""
        return self.what, self.here, self.advice

    def to_json(self) -> dict[str, str]:
        """The fact as plain data."""
        return {"what": self.what, "here": self.here, "advice": self.advice}


def machine_facts(settings: "Settings") -> list[MachineFact]:
    """Look at this machine. No secret is shown: of a token only where it was found."""
    return [
        *_python(),
        _loops(),
        _gpu(),
        *_disks(settings),
        *_extras(),
        *_credentials(settings),
        _browser(),
    ]


def _python() -> Iterator[MachineFact]:
    from merge_ops.stream import usable_cores

    version = platform.python_version()
    other = "" if sys.version_info[:2] == TESTED else "all tests run with 3.11 alone"
    yield MachineFact("Python", version, other)
    system = f"{platform.system()} on {platform.machine()}"
    linux = "" if sys.platform == "linux" else "merges are written on Linux alone"
    cores, usable = os.cpu_count() or 1, usable_cores()
    fewer = f", {usable} of them for this process" if usable < cores else ""
    yield MachineFact("system", f"{system}, {cores} cores{fewer}", linux)
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        few = "raise it (ulimit -n) for models of many shards" if limit < FEW_FILES else ""
        yield MachineFact("open files", str(limit), few)


def _loops() -> MachineFact:
    """The innermost loops in C, and the compiler that would make them."""
    from merge_ops.kernels.compile import compiler, processor
    from merge_ops.kernels.library import library

    if library() is not None:
        return MachineFact("loops in C", f"compiled, for {processor()}")
    if compiler() is not None:
        return MachineFact("loops in C", "missing", "install again: there is a compiler now")
    advice = "merges run slower, to the same bits; install gcc or clang, then Ronghe again"
    return MachineFact("loops in C", "missing, and no compiler", advice)


def _gpu() -> MachineFact:
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if find_spec("torch") is None:
        advice = "pip install 'ronghe[torch]'" if driver else ""
        return MachineFact("GPU", "a driver, and no torch" if driver else "no torch", advice)
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())}
        return MachineFact("GPU", f"{torch.cuda.device_count()}: {', '.join(sorted(names))}")
    if driver:
        advice = "this torch sees none: install one for your CUDA version"
        return MachineFact("GPU", "a driver, unseen by torch", advice)
    return MachineFact("GPU", "none", "not needed: merges and scores run on the CPU")


def _disks(settings: "Settings") -> Iterator[MachineFact]:
    """Free space where things are written; folders of one disk are told once."""
    from resources.upstream import open_far_model

    hub = open_far_model("hf://owner/name").kept_in.parent
    places = {"temporary files": Path(tempfile.gettempdir()), "Hub's cache": hub}
    if settings.store.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        places = {"store": Path(unquote(urlsplit(settings.store).path)), **places}
    seen: set[int] = set()
    for what, folder in places.items():
        there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
        device = there.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(there).free
        little = "less than a model of 7 B takes" if free < LITTLE_DISK else ""
        yield MachineFact(f"disk: {what}", f"{size_text(free)} free in {there}", little)


def _extras() -> Iterator[MachineFact]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if not missing:
            yield MachineFact(f"extra: {extra}", "installed")
        else:
            told = f"{len(missing)} of {len(modules)} modules missing ({', '.join(missing[:3])})"
            yield MachineFact(f"extra: {extra}", told, f"pip install 'ronghe[{extra}]'")


def _credentials(settings: "Settings") -> Iterator[MachineFact]:
    """Where a credential was found, and never what it is. Its place alone says if it is good."""
    from resources.upstream import open_far_model

    hub, token = open_far_model("hf://owner/name"), first_set(_HUB_TOKENS)
    file = hub.kept_in.parent.parent / "token"
    where = token or (str(file) if file.is_file() else "")
    advice = "" if where else "for private and gated models: hf auth login, or HF_TOKEN"
    yield MachineFact("Hub", f"{hub.home}, token in {where}" if where else hub.home, advice)
    scope = first_set(_SCOPE_TOKENS)
    told = f"token in {scope}" if scope else "no token"
    advice = "" if scope else "for private models: MODELSCOPE_API_TOKEN"
    yield MachineFact("ModelScope", told, advice)
    chain = first_set(_AWS) or next(
        (str(each) for each in (Path.home() / ".aws" / "credentials",) if each.is_file()), ""
    )
    needed = settings.store.startswith("s3:")
    advice = (
        "" if chain else "the store is a bucket: AWS_ACCESS_KEY_ID, or ~/.aws" if needed else ""
    )
    yield MachineFact("S3", f"credentials in {chain}" if chain else "no credentials", advice)


def _browser() -> MachineFact:
    found = next((each for each in BROWSERS if shutil.which(each)), None)
    if found is None:
        return MachineFact("browser", "none found", "only tests of pages in a browser need one")
    return MachineFact("browser", found)

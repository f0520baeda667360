"""Builds Ronghe: the backend that pip calls, and hatchling's hook behind it.

An editable install compiles the loops of merge_ops in C with the compiler of the machine; where
there is none, the build brings the package `ziglang` (MIT). Where even that fails the install goes
on: merges then run on torch and numpy alone, slower, to the same bits.

A wheel differs from the checkout in two things:

- Zig compiles its loops for glibc 2.17, which every Linux of the last ten years has, so the wheel
  is a manylinux2014 one. `pip wheel -C target=aarch64-linux .` makes another machine's,
  `-C target=any` one without loops.
- `orchestration`, `assets` and `resources`, which are anybody's names, lie below the package
  `ronghe`, and their imports say so (module_moves.py has how). `merge_ops` and `eval_ops` stay.
"""

import importlib.util
import os
import platform
import re
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling import build as hatchling
from hatchling.build import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
)
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

ROOT = Path(__file__).parent
OLDEST_GLIBC = (2, 17)
TARGETS = {f"{machine}-linux": machine for machine in ("x86_64", "aarch64")}
# How the backend tells the hook: hatchling passes no settings on. Not named RONGHE_…, which are
# settings of the program.
TARGET_VARIABLE = "WHEEL_TARGET_OF_RONGHE"


def _load(path: Path) -> Any:
    """Load a module of the checkout by its file, since none of it is installed yet."""
    spec = importlib.util.spec_from_file_location(path.stem + "_of_the_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compile_kernels = _load(ROOT / "merge_ops" / "kernels" / "compile.py")


def get_requires_for_build_wheel(config_settings: Mapping[str, Any] | None = None) -> list[str]:
    """Ask for zig where it compiles, besides what hatchling asks for."""
    needed = hatchling.get_requires_for_build_wheel(None)
    zig = [compile_kernels.ZIG] if wheel_target(config_settings) in TARGETS else []
    return [*needed, *(each for each in zig if each not in needed)]


def build_wheel(
    wheel_directory: str,
    config_settings: Mapping[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel for `target` of the settings, this machine by default."""
    os.environ[TARGET_VARIABLE] = wheel_target(config_settings)
    return hatchling.build_wheel(wheel_directory, None, metadata_directory)


def wheel_target(config_settings: Mapping[str, Any] | None) -> str:
    """What a wheel is for: `x86_64-linux`, `aarch64-linux`, `any`, or `here`, another machine.

    Raises ValueError where the setting `target` is none of them.
    """
    given = (config_settings or {}).get("target")
    if given is None:
        glibc = platform.libc_ver()[0] == "glibc"
        here = f"{platform.machine().lower()}-{sys.platform}"
        return here if glibc and here in TARGETS else "here"
    if given not in (*TARGETS, "any", "here"):
        raise ValueError(f"target is {given!r}; it must be one of {[*TARGETS, 'any', 'here']}")
    return str(given)


class RongheHook(BuildHookInterface):
    """The hook that hatchling calls."""

    def dependencies(self) -> list[str]:
        """Ask for a compiler, where the machine has none."""
        return [] if compile_kernels.compiler() else [compile_kernels.ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put into the wheel what is not as in the checkout."""
        if version == "editable":
            self._compile_in_place(build_data)
            return
        self._folder = tempfile.TemporaryDirectory()
        made = Path(self._folder.name)
        loops, moved = made / "loops", made / "moved"
        loops.mkdir()
        tag = self._compile(loops)
        if tag is not None:
            build_data["pure_python"], build_data["tag"] = False, tag
        moves = _load(ROOT / "module_moves.py")
        moves.move(Path(self.root), moved)
        scripts = self.metadata.core.scripts  # what becomes entry_points.txt
        scripts.update({name: moves.moved_name(command) for name, command in scripts.items()})
        package = moved / moves.PACKAGE
        build_data["force_include"] |= {str(loops): "merge_ops/kernels", str(package): package.name}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what `initialize` made."""
        if version != "editable":
            self._folder.cleanup()

    def _compile_in_place(self, build_data: dict[str, Any]) -> None:
        if self._compiled(None, None):
            build_data["pure_python"] = False
            build_data["tag"] = _tag_of_this_machine()

    def _compile(self, folder: Path) -> str | None:
        """Compile into a folder; returns the wheel's tag, None where nothing was compiled."""
        target = os.environ.get(TARGET_VARIABLE) or wheel_target(None)
        machine = TARGETS.get(target)
        if target == "any":
            return None
        if machine is None or compile_kernels.zig() is None:
            return _tag_of_this_machine() if self._compiled(folder, None) else None
        glibc = ".".join(map(str, OLDEST_GLIBC))
        files = self._compiled(folder, f"{machine}-linux-gnu.{glibc}")
        return _manylinux_tag(files, machine) if files else None

    def _compiled(self, folder: Path | None, target: str | None) -> list[Path]:
        try:
            # One version of one compiler makes a wheel: what it warns of is a fault.
            flags = ["-Werror"] if target else []
            return compile_kernels.compile_kernels(folder, target, flags)
        except (OSError, RuntimeError) as error:
            if target:  # a wheel is for others: slow loops would be noticed by nobody
                raise
            sys.stderr.write(f"{error}\nThe kernels are left out: merges will be slower.\n")
            return []


def _tag_of_this_machine() -> str:
    """The loops are loaded by ctypes: they depend on the platform, not on Python's version."""
    return f"py3-none-{re.sub(r'[-.]', '_', sysconfig.get_platform())}"


def _manylinux_tag(files: list[Path], machine: str) -> str:
    """The tag that the libraries deserve.

    Raises RuntimeError where one needs a newer glibc, or a library besides it.
    """
    for file in files:
        content = file.read_bytes()
        needed = {tuple(map(int, each)) for each in re.findall(rb"GLIBC_(\d+)\.(\d+)", content)}
        libraries = set(re.findall(rb"\0(lib[\w+-]+\.so[.\d]*)", content))
        if any(each > OLDEST_GLIBC for each in needed) or libraries - {b"libc.so.6", b"libm.so.6"}:
            raise RuntimeError(f"{file.name} is no manylinux library: {needed}, {libraries}")
    major, minor = OLDEST_GLIBC
    return f"py3-none-manylinux_{major}_{minor}_{machine}.manylinux2014_{machine}"

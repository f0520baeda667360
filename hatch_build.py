"""Compiles the loops of merge_ops in C while the package is built or installed for editing.

Where no C compiler is found the build brings one along: the package `ziglang` (MIT). Where even
that fails the install goes on: merges then run on torch and numpy alone, slower, to the same bits.
"""

import importlib.util
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SPEC = importlib.util.spec_from_file_location(
    "compile_kernels", Path(__file__).parent / "merge_ops" / "kernels" / "compile.py"
)
assert SPEC is not None
assert SPEC.loader is not None
compile_kernels = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(compile_kernels)


class KernelsHook(BuildHookInterface):
    """The hook that hatchling calls."""

    def dependencies(self) -> list[str]:
        """A compiler, where the machine has none."""
        return [] if compile_kernels.compiler() else ["ziglang==0.17.1"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the libraries into the wheel."""
        try:
            files = compile_kernels.compile_kernels()
        except (OSError, RuntimeError) as error:
            sys.stderr.write(f"{error}\nThe kernels are left out: merges will be slower.\n")
            return
        root = Path(self.root)
        for file in files:
            build_data["force_include"][str(file)] = file.relative_to(root).as_posix()
        if files:  # loaded by ctypes: they depend on the platform, not on Python's version
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{re.sub(r'[-.]', '_', sysconfig.get_platform())}"

"""Compiles the loops in C beside itself, once for each kind of processor, when Ronghe is installed.

    python -m merge_ops.kernels.compile

The standard library is all it needs, and any C compiler: the one that $CC names, `cc`, or the one
in the package `ziglang`, which the build asks for where there is none, and for every wheel
(hatch_build.py): zig compiles for other machines and for older C libraries than this one's.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = (
    "kernels.c", "kernels_masks.c", "kernels_stored.c", "kernels_elementary.c",
    "kernels_checksums.c",
)  # fmt: skip
HEADERS = ("kernels.h",)
# No flag here may let a compiler change a bit: no -ffast-math, no contraction to fused operations.
FLAGS = (
    "-O3", "-std=gnu11", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno",
    "-fno-trapping-math", "-fno-strict-aliasing",
)  # fmt: skip
# Lengths, bits and signs are converted all over; tests and wheels compile with -Werror added.
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes")
# By torch's names for what a processor can do (torch.backends.cpu.get_cpu_capability).
PROCESSORS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3", "DEFAULT": "x86-64"}
NEEDED = {"AVX512": {"avx512vl", "avx512bw", "avx512dq", "fma"}, "AVX2": {"avx2", "fma"}}
INTEL = ("x86_64", "amd64")
# The one compiler that a package index has, MIT; pinned, so that a wheel's bytes are too.
ZIG = "ziglang==0.17.1"


def source_digest() -> str:
    """What a compiled library must say it was made from."""
    parts = [(FOLDER / name).read_bytes() for name in (*SOURCES, *HEADERS)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def library_file(processor: str) -> Path:
    """Where the library for a kind of processor lies."""
    return FOLDER / f"kernels-{processor.lower()}.so"


def processor() -> str:
    """What this processor can do, by torch's names and rules, without torch where that is possible.

    $ATEN_CPU_CAPABILITY makes torch do with less, and so these loops too.
    """
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        if platform.machine().lower() not in INTEL:
            return "DEFAULT"
        import torch

        return torch.backends.cpu.get_cpu_capability()
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "").upper()
    for name, needed in NEEDED.items():
        if name == asked or (asked not in PROCESSORS and needed <= set(flags)):
            return name
    return "DEFAULT"


def compiler() -> list[str] | None:
    """The command of a C compiler, or None."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return [found]
    return zig()


def zig() -> list[str] | None:
    """The command of the C compiler in the package `ziglang`, or None where it is not installed."""
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None


def compile_kernels(
    folder: Path | None = None, target: str | None = None, flags: Sequence[str] = ()
) -> list[Path]:
    """Compile for every kind of processor of an architecture; returns the files, maybe none.

    They go into `folder` (default: beside the sources). The architecture is this machine's, unless
    `target` names another as zig writes it, such as `aarch64-linux-gnu.2.17`; only zig compiles
    that. `flags` are added to ours.

    Raises RuntimeError with the compiler's words where it fails.
    """
    command = zig() if target else compiler()
    if command is None:
        return []
    machine = target.split("-")[0] if target else platform.machine().lower()
    names = PROCESSORS if machine in INTEL else {"DEFAULT": ""}
    added = [*flags, *(["-target", target] if target else [])]
    made: list[Path] = []
    for kind, name in names.items():
        march = name.replace("-", "_") if "ziglang" in command else name  # zig writes underscores
        file = (folder or FOLDER) / library_file(kind).name
        _compile(command, [*added, *([f"-march={march}"] if march else [])], file)
        made.append(file)
    return made


def _compile(command: list[str], flags: list[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kernels") as folder:
        made = Path(folder) / target.name
        sources = [str(FOLDER / name) for name in SOURCES]
        source = f'-DSOURCE="{source_digest()}"'
        done = subprocess.run(
            [*command, *FLAGS, *WARNINGS, *flags, source, *sources, "-o", str(made), "-lm"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} cannot compile {SOURCES}:\n{done.stderr}")
        os.replace(made, target)


if __name__ == "__main__":
    files = compile_kernels()
    told = [str(file) for file in files] or ["no C compiler was found: merges will be slower"]
    sys.stdout.write("\n".join(told) + "\n")

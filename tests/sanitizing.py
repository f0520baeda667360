"""Runs tests of the loops in C with sanitizers: `python -m tests.sanitizing [PYTEST'S ARGUMENTS]`.

AddressSanitizer sees reads and writes outside of an array, UndefinedBehaviorSanitizer overflows,
wrong shifts and misaligned reads. Both end the process at once, with the line in C. Where the
machine's compiler has neither, zig brings the second; that is said, and with CI set it is a fault.

As a plugin of pytest this module has the sanitized library loaded in place of the usual one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from merge_ops.kernels import compile as compile_kernels

TESTS = "tests/merge_ops/kernels"
FOLDER_VARIABLE = "SANITIZED_LOOPS"  # for the process that runs the tests
ADDRESS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined")
UNDEFINED = ("-O1", "-g", "-fsanitize=undefined")
STOP = ("-fno-sanitize-recover=all",)


def main(arguments: list[str]) -> int:
    """Compile with sanitizers and run the tests; returns the exit status."""
    runtime = _runtime()
    if runtime is None and os.environ.get("CI"):
        sys.stderr.write("sanitizing: no compiler here has AddressSanitizer; install gcc\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        if compile_kernels.compiler() is None:
            _bring_zig(Path(folder) / "zig")
        try:
            flags = ADDRESS if runtime else UNDEFINED
            compile_kernels.compile_kernels(Path(folder), None, [*flags, *STOP])
        except RuntimeError as error:
            sys.stderr.write(f"sanitizing: {error}\n")
            return 1
        if runtime is None:
            sys.stderr.write("sanitizing: no AddressSanitizer here: array bounds are NOT CHECKED\n")
        command = [sys.executable, "-m", "pytest", "-p", __spec__.name, "-p", "no:cacheprovider"]
        command += ["--capture=sys"]  # what a sanitizer writes before it ends the process is seen
        return subprocess.run(
            [*command, *(arguments or [TESTS])],
            env={**os.environ, FOLDER_VARIABLE: folder, **_environment(runtime)},
        ).returncode


def _bring_zig(folder: Path) -> None:
    """Have zig at hand, in this process and those it starts, without installing it.

    Raises CalledProcessError where the package index does not give it.
    """
    sys.stderr.write(f"sanitizing: there is no C compiler here; fetching {compile_kernels.ZIG}\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    subprocess.run([*command, compile_kernels.ZIG], check=True)
    sys.path.append(str(folder))
    os.environ["PYTHONPATH"] = str(folder)


def _runtime() -> str | None:
    """The library of AddressSanitizer, which must be loaded before Python; None without one."""
    command = compile_kernels.compiler()
    if command is None or "ziglang" in command:
        return None
    for name in ("libasan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan.so"):
        told = subprocess.run(
            [*command, f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        if Path(told).is_absolute() and Path(told).is_file():
            return str(Path(told).resolve())
    return None


def _environment(runtime: str | None) -> dict[str, str]:
    if runtime is None:
        return {}
    # Python itself keeps memory to its end; leaks are not what is looked for.
    return {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}


def pytest_configure() -> None:
    """Have the sanitized libraries loaded in place of those beside the sources."""
    sanitized, sources = Path(os.environ[FOLDER_VARIABLE]), compile_kernels.FOLDER
    usual = compile_kernels.library_file

    def library_file(processor: str) -> Path:
        file = usual(processor)
        return sanitized / file.name if file.parent == sources else file

    compile_kernels.library_file = library_file


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where another library was used, or none: then nothing was checked."""
    if os.environ[FOLDER_VARIABLE] not in Path("/proc/self/maps").read_text():
        sys.stderr.write("sanitizing: the sanitized loops were never loaded\n")
        session.exitstatus = 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

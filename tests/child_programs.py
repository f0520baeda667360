"""What limited children are asked to do in tests: well-behaved work, and every way to end badly."""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class PanicException(BaseException):
    """What a library written in Rust raises: no Exception."""


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """Do what the request names and return what came out."""
    verb = request["do"]
    return globals()[f"do_{verb}"](request, tell)


def do_echo(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    for each in request.get("tell", ()):
        tell(each)
    print("noise of a library")
    return {"back": request["value"], "process": os.getpid()}


def do_environment(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    limits: dict[str, int] = {}
    import resource

    for name in ("DATA", "CPU", "NOFILE", "FSIZE", "CORE"):
        limits[name] = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
    opened = sorted(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else []
    targets = [os.readlink(f"/proc/self/fd/{n}") for n in opened if _is_open(n)]
    return {
        "environment": dict(os.environ),
        "limits": limits,
        "descriptors": targets,
        "folder": os.getcwd(),
        "group": os.getpgid(0) == os.getpid(),
    }


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def do_network(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """Every way out that is tried: what it came to."""
    told: dict[str, str] = {}
    library = ctypes.CDLL(None, use_errno=True)
    tries: dict[str, Callable[[], object]] = {
        "python": lambda: socket.create_connection(("127.0.0.1", request["port"]), timeout=2),
        "name": lambda: socket.getaddrinfo("localhost", 80),
        "unix": lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"),
        "process": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        "system": lambda: os.system("true"),
    }
    for name, attempt in tries.items():
        try:
            attempt()
            told[name] = "done"
        except OSError as error:
            told[name] = type(error).__name__
    # As a library of C or Rust does it, without Python's hook:
    made = library.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    address = (
        b"\x02\x00" + int(request["port"]).to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    )
    told["native"] = "done" if made >= 0 and not library.connect(made, address, 16) else "refused"
    return told


def do_memory(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    held = []
    while True:
        held.append(bytearray(16 << 20))


def do_native_memory(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """As Rust does when memory is out: a word on stderr, and abort."""
    os.write(2, b"memory allocation of 4294967296 bytes failed\n")
    os.abort()


def do_panic(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    raise PanicException("regex failed")


def do_raise(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    raise LookupError("no such thing")


def do_wrapped_memory(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    try:
        raise MemoryError
    except MemoryError as error:
        raise ValueError("a library's own word for it") from error


def do_leave(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    os.write(2, b"had enough\n")
    os._exit(7)


def do_signal(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    signal.signal(request["number"], signal.SIG_DFL) if request["number"] != 9 else None
    os.kill(os.getpid(), request["number"])
    time.sleep(60)


def do_spin(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """Work that holds the interpreter's lock and heeds nothing, as a loop of C does."""
    while True:
        sum(range(10**7))


def do_sleep(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    tell({"process": os.getpid(), "folder": os.getcwd()})
    time.sleep(600)


def do_stuck(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """A regular expression that takes for ever, and lets no other thread run meanwhile."""
    tell({"process": os.getpid(), "folder": os.getcwd()})
    return re.match("(a+)+$", "a" * 64 + "b")


def do_file(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    Path("large").write_bytes(bytes(request["size"]))
    return {}


def do_look_for(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """What is known of a package: its module, and its distribution."""
    name = request["package"]
    found = importlib.util.find_spec(name) is not None
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return {"found": found, "version": version}


def do_babble(request: Mapping[str, Any], tell: Callable[[Any], None]) -> Any:
    """What is no line of JSON, on the descriptor of the answers."""
    for number in range(3, 30):
        try:
            os.write(number, b"\x80 no answer\n")
        except OSError:
            continue
    time.sleep(60)

"""The program of a template: a clean process with the heavy imports, which forks others.

It stands alone, as child_program.py does: `python -I` starts it by its path with one argument of
JSON: `root`, `socket` (its path, which goes with it), `owner` (a process, at whose end it ends),
`hidden` and `imports`.
A connection brings one line of JSON with five files: input, output, what is printed, the lifeline
or any file, and a pipe for the status. It gets the fork's number back, and later the status on that
pipe. The line has `environment`, `home` (the fork's folder), and what it is to become: a limited
child (`given`, its settings) or a script (`command`, its path and arguments).
"""

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import Any, NoReturn

FILES = 5


def _become(program: Any, asked: dict[str, Any], files: list[int]) -> NoReturn:
    """Become what `python -I child_program.py`, or the script, would be in a process of its own."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        wanted = [0, 1, 2, *([asked["given"]["lifeline"]] if "given" in asked else [])]
        free = max(*wanted, *files) + 1
        kept = [os.dup2(each, free + place) for place, each in enumerate(files[:-1])]
        os.closerange(3, free)
        for place, each in enumerate(wanted):
            os.dup2(kept[place], each)
        os.closerange(free, free + FILES)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["home"])
        if "given" in asked:
            program.main(json.dumps(asked["given"]))
        else:
            sys.argv = asked["command"]
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _owner_is_there(owner: int) -> bool:
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    return True


def _collect(waiting: dict[int, int]) -> None:
    """Send the status of each fork that has ended."""
    while waiting:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        pipe = waiting.pop(process)
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(pipe)


def main(argument: str) -> None:
    """Fork what is asked for until the owner has ended."""
    settings = json.loads(argument)
    sys.path.append(settings["root"])
    program = import_module("merge_ops.children.child_program")
    finders = [program._Hiding(each, frozenset(settings["hidden"])) for each in sys.meta_path]
    sys.meta_path[:] = finders
    for name in settings["imports"]:
        import_module(name)
    gc.collect()
    gc.freeze()
    server = socket.socket(socket.AF_UNIX)
    server.bind(settings["socket"] + ".new")
    server.listen(64)
    os.rename(settings["socket"] + ".new", settings["socket"])
    ended, wakes = socket.socketpair()
    for each in (ended, wakes):
        each.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    waiting: dict[int, int] = {}
    while _owner_is_there(settings["owner"]):
        _collect(waiting)
        ready = select.select([server, ended], [], [], 1.0)[0]
        if ended in ready:
            ended.recv(1 << 12)
        if server not in ready:
            continue
        connection, _ = server.accept()
        with connection:
            line, files, _, _ = socket.recv_fds(connection, 1 << 20, FILES)
            while not line.endswith(b"\n"):
                line += connection.recv(1 << 20)
            process = os.fork()
            if not process:
                server.close()
                connection.close()
                _become(program, json.loads(line), files)
            waiting[process] = files.pop()
            for each in files:
                os.close(each)
            connection.sendall(f"{process}\n".encode())
    with contextlib.suppress(FileNotFoundError):
        os.unlink(settings["socket"])


if __name__ == "__main__":
    main(sys.argv[1])

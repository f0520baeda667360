"""The program of a template: a clean process with the heavy imports, which forks limited children.

It stands alone, as child_program.py does: `python -I` starts it by its path with one argument of
JSON: `root`, `socket` (its path, which goes with it), `owner` (a process, at whose end it ends),
`hidden` and `imports`.
A connection brings one line of JSON (`given`, `environment`, `home`) with five files: input,
output, what is printed, the lifeline, and a pipe for the status. It gets the child's number back,
and later the status on that pipe.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Any, NoReturn

FILES = 5
_FREE = 512  # numbers of files from here on are nobody's


def _child(program: Any, asked: dict[str, Any], files: list[int]) -> NoReturn:
    """Become what `python -I child_program.py` would be."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        kept = [os.dup2(each, _FREE + place) for place, each in enumerate(files[:-1])]
        os.closerange(3, _FREE)
        for place, each in enumerate((*range(3), asked["given"]["lifeline"])):
            os.dup2(kept[place], each)
        os.closerange(_FREE, _FREE + FILES)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["home"])
        program.main(json.dumps(asked["given"]))
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def _owner_is_there(owner: int) -> bool:
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    return True


def _collect(waiting: dict[int, int]) -> None:
    """Send the status of each child that has ended."""
    while waiting:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        pipe = waiting.pop(process)
        try:
            os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
        except BrokenPipeError:
            pass
        os.close(pipe)


def main(argument: str) -> None:
    """Fork children until the owner has ended."""
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
                _child(program, json.loads(line), files)
            waiting[process] = files.pop()
            for each in files:
                os.close(each)
            connection.sendall(f"{process}\n".encode())
    os.unlink(settings["socket"])


if __name__ == "__main__":
    main(sys.argv[1])

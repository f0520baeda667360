"""`ronghe ui`: Dagster's page, guarded, and the daemon beside it."""

import logging
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from threading import Thread
from types import TracebackType

from merge_ops.errors import Fault, SettingsError
from orchestration.commands.console import PlainConsole, print_json, say
from orchestration.commands.pages.page_guard import LOOPBACK, PageGuard
from orchestration.refreshing.instance import prepare_home
from orchestration.settings import load_settings, share_dagster_home

DEFINITIONS = f"{__name__.rpartition('.commands.')[0]}.definitions"
_STOP_SECONDS = 10.0
_DATABASE = (15_000, 3_600, 20)  # ms of a statement, s of a connection, connections: Dagster's own


def run_ui(
    host: str,
    port: int,
    host_names: Sequence[str],
    with_daemon: bool,
    workspace: Path | None = None,
    as_json: bool = False,
) -> None:
    """Serve the page until it is stopped; the daemon ends with it. Its address is told first.

    `workspace` is Dagster's file of code locations: by default ./workspace.yaml, else Ronghe's own.

    Raises SettingsError for an address that cannot be listened on.
    """
    settings = load_settings()
    if host not in LOOPBACK and not host_names:
        problem = (
            f"is {host}, which other machines reach: anybody there could start and delete runs."
            " Say by --host-name under which name people open the page, behind a proxy that asks"
            " who they are; or leave --host out"
        )
        raise SettingsError("ronghe ui", [Fault("--host", problem)])
    listener = _listen(host, port)
    prepare_home(settings)
    share_dagster_home(settings)
    here = Path("workspace.yaml")
    workspace = workspace or (here if here.is_file() else None)
    target = ["-m", DEFINITIONS] if workspace is None else ["--workspace", str(workspace)]
    with ExitStack() as stack:
        stack.callback(listener.close)
        stack.enter_context(_Daemon(target) if with_daemon else nullcontext())
        shown = "localhost" if host in LOOPBACK else host_names[0]
        address = f"http://{shown}:{listener.getsockname()[1]}"
        if as_json:
            print_json({"url": address, "daemon": with_daemon})
        say(PlainConsole(stderr=True), f"the page is {address} (Ctrl-C ends it and the daemon)")
        _serve(listener, target, (host, *host_names))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        problem = f"{port} on {host} cannot be listened on ({error}); choose another, such as 3001"
        raise SettingsError("ronghe ui", [Fault("--port", problem)]) from None
    return listener


def _serve(listener: socket.socket, target: Sequence[str], names: Sequence[str]) -> None:
    """Serve Dagster's page on an open socket, in this process, until a signal."""
    import uvicorn
    from dagster import DagsterInstance, __version__
    from dagster_webserver.webserver import DagsterWebserver

    from assets.frame.dagster_internals import (
        ModuleTarget,
        WorkspaceFileTarget,
        WorkspaceProcessContext,
    )

    option, what = target
    load = (
        WorkspaceFileTarget([what])
        if option == "--workspace"
        else ModuleTarget(what, None, None, None)
    )
    logging.getLogger("dagster").setLevel(logging.WARNING)
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, load, __version__) as context,
    ):
        instance.optimize_for_webserver(*_DATABASE)
        page = PageGuard(DagsterWebserver(context).create_asgi_app(), names)
        server = uvicorn.Server(uvicorn.Config(page, log_level="warning", lifespan="off"))
        server.run(sockets=[listener])


class _Daemon(AbstractContextManager["_Daemon"]):
    """Dagster's daemon as a process that ends with this one."""

    def __init__(self, target: Sequence[str]) -> None:
        program = Path(sys.executable).with_name("dagster-daemon")
        command = [str(program), "run", *target, "--log-level", "warning"]
        self._process, self._is_stopped = subprocess.Popen(command), False
        self._watcher = Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Say it where the daemon ends by itself: the page would look as before."""
        code = self._process.wait()
        if not self._is_stopped:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            told = (
                f"error: the daemon {how}: nothing is looked at or run any more. The page goes on"
            )
            say(
                PlainConsole(stderr=True), f"{told}; end it with Ctrl-C and start `ronghe ui` again"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the daemon."""
        self._is_stopped = True
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

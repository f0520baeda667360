"""Headless Chromium, driven over its debugging protocol: open a page, read it, take its picture."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.servers.waiting import HANG_SECONDS, wait_until

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """The browser's path, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. Every call is a round trip; nothing is shared between calls."""

    def __init__(self, url: str, width: int | None = None) -> None:
        self._url = url
        self._width = width

    def narrow(self, width: int) -> "Page":
        """The same tab as a screen of that width sees it; windows have at least 500 pixels."""
        return Page(self._url, width)

    def text(self) -> str:
        """What a reader sees."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    def open(self, address: str) -> None:
        """Go to an address."""
        self._call("Page.navigate", url=address)

    def wait_for(self, *words: str) -> str:
        """The page's text once it holds all of `words`."""
        seen = [""]

        def there() -> bool:
            seen[0] = self.text()
            return all(word in seen[0] for word in words)

        wait_until(there, lambda: f"{words} on the page:\n{seen[0]}", pause=0.3)
        return seen[0]

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript condition holds."""
        wait_until(
            lambda: self.evaluate(condition) is True,
            lambda: f"{condition} on the page:\n{self.text()}",
            pause=0.05,
        )

    def picture(self, path: Path) -> Path:
        """Save a PNG of what is seen."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def width(self, pixels: int | None) -> None:
        """Show pages as wide as that, as a phone does; None: as wide as the window."""
        if pixels is None:
            self._call("Emulation.clearDeviceMetricsOverride")
        else:
            size = {"width": pixels, "height": 844, "deviceScaleFactor": 1, "mobile": True}
            self._call("Emulation.setDeviceMetricsOverride", **size)

    def _call(self, method: str, **parameters: Any) -> Any:
        return asyncio.run(self._answer(method, parameters))

    async def _answer(self, method: str, parameters: dict[str, Any]) -> Any:
        request = {"id": 1, "method": method, "params": parameters}
        async with websockets.connect(self._url, max_size=1 << 27) as socket:
            if self._width is not None:  # which holds as long as this connection
                size = {"width": self._width, "height": 844, "deviceScaleFactor": 1}
                override = {"method": "Emulation.setDeviceMetricsOverride"}
                parameters = {**size, "mobile": False}
                await socket.send(json.dumps({"id": 0, **override, "params": parameters}))
            await socket.send(json.dumps(request))
            while True:
                answer = json.loads(await socket.recv())
                if answer.get("id") == 1:
                    assert "error" not in answer, answer
                    return answer["result"]


@contextmanager
def browser(program: str, folder: Path, width: int = 1600, height: int = 900) -> Iterator[Page]:
    """A browser with one tab, and a profile of its own below `folder`."""
    profile = folder / "chromium"
    profile.mkdir(parents=True, exist_ok=True)
    size = f"--window-size={width},{height}"
    process = subprocess.Popen(
        [program, *FLAGS, size, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield Page(_tab(profile / "DevToolsActivePort"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tab(port_file: Path) -> str:
    """The debugging address of the one tab, once the browser is up."""
    tabs: list[dict[str, Any]] = []

    def up() -> bool:
        if port_file.is_file() and (lines := port_file.read_text().splitlines()):
            address = f"http://127.0.0.1:{lines[0]}/json"
            with urllib.request.urlopen(address, timeout=HANG_SECONDS) as answer:
                tabs.extend(tab for tab in json.load(answer) if tab["type"] == "page")
        return bool(tabs)

    wait_until(up, "a tab of the browser", pause=0.1)
    return str(tabs[0]["webSocketDebuggerUrl"])


@contextmanager
def wanted_browser(folder: Path) -> Iterator[Page]:
    """A browser for tests, which are skipped without one, or fail where one is required."""
    program = find_chromium()
    if program is None:
        if os.environ.get("RONGHE_REQUIRE_BROWSER"):
            pytest.fail("no Chromium on PATH; install it (Debian: apt-get install chromium)")
        pytest.skip("no Chromium on PATH; `apt-get install chromium` lets the page tests run")
    with browser(program, folder) as opened:
        yield opened

"""Headless Chromium, driven over its debugging protocol: open a page, read it, take its picture."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websockets

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

    def __init__(self, url: str) -> None:
        self._url = url

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

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The page's text once it holds all of `words`."""
        deadline = time.monotonic() + seconds
        while True:
            text = self.text()
            missing = [word for word in words if word not in text]
            if not missing:
                return text
            assert time.monotonic() < deadline, f"{missing} not on the page:\n{text}"
            time.sleep(0.3)

    def wait_until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript condition holds."""
        deadline = time.monotonic() + seconds
        while self.evaluate(condition) is not True:
            assert time.monotonic() < deadline, f"{condition} does not hold:\n{self.text()}"
            time.sleep(0.3)

    def picture(self, path: Path) -> Path:
        """Save a PNG of what is seen."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def _call(self, method: str, **parameters: Any) -> Any:
        return asyncio.run(self._answer(method, parameters))

    async def _answer(self, method: str, parameters: dict[str, Any]) -> Any:
        request = {"id": 1, "method": method, "params": parameters}
        async with websockets.connect(self._url, max_size=1 << 27) as socket:
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
    for _ in itertools.repeat(None, 300):
        if port_file.is_file() and (lines := port_file.read_text().splitlines()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json", timeout=10) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError("the browser did not come up within 30 s")

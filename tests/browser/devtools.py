"""A headless Chromium, driven over its own debugging pipe: nothing to install beside it."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0

FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
)


def find_browser() -> str | None:
    """The browser that CHROMIUM names, else the first one on the path."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    return next((found for name in NAMES if (found := shutil.which(name))), None)


START = """
import fcntl, os, sys
reads, writes, *command = sys.argv[1:]
# Aside first: one of them may be 3 or 4 already.
reads, writes = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in (reads, writes))
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(command[0], command)
"""
"""Moves the pipes to the numbers that the browser expects."""


class Browser:
    """One browser process; commands are JSON, each ended by a zero byte (pipes 3 and 4)."""

    def __init__(self, binary: str, folder: Path) -> None:
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        self._numbers, self._held = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(reads), str(writes), binary, *FLAGS,
             f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
        os.close(reads)
        os.close(writes)

    def close(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        for end in (self._in, self._out):
            os.close(end)
        self._log.close()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile is kept in `events`."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._out, left) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def wait(self, session: str, method: str) -> None:
        """Until this event has come."""
        while not any(
            e["method"] == method and e["sessionId"] == session for e in self._of(session)
        ):
            self.events.append(self._next())

    def _of(self, session: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e.get("sessionId") == session]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended; see chromium.log"
            self._held += part
        message, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(message))


@dataclass
class Tab:
    """A page opened in a browser, as wide as a device and in its colours."""

    browser: Browser
    session: str
    opened: str = ""
    width: int = 0

    def open(self, url: str) -> None:
        """Loads the page and waits until it is complete."""
        self.opened = url
        self._call("Page.navigate", url=url)
        self.browser.wait(self.session, "Page.loadEventFired")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Everything written to the console, logged by the browser or thrown by the page."""
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self._events() if e["method"] in wanted]

    def requests(self) -> list[str]:
        """Every address asked for, but that of the page itself."""
        found = [
            e["params"]["request"]["url"]
            for e in self._events()
            if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in found if url != self.opened]

    def screenshot(self, path: Path) -> None:
        """The whole page, however long, as PNG."""
        height = self.run("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.width, "height": height, "scale": 1}
        answer = self._call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def print_pages(self, path: Path) -> None:
        """The page as it would be printed, as PDF."""
        answer = self._call("Page.printToPDF", printBackground=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def _events(self) -> list[dict[str, Any]]:
        return [e for e in self.browser.events if e.get("sessionId") == self.session]


@contextlib.contextmanager
def tab(browser: Browser, width: int, *, dark: bool) -> Iterator[Tab]:
    """A tab of a device this wide."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    found = Tab(browser, session, width=width)
    for domain in ("Page", "Runtime", "Network", "Log"):
        browser.call(f"{domain}.enable", session)
    phone = width < 600
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        session,
        width=width,
        height=800,
        deviceScaleFactor=2 if phone else 1,
        mobile=phone,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.call("Emulation.setEmulatedMedia", session, features=[scheme])
    try:
        yield found
    finally:
        browser.call("Target.closeTarget", targetId=target)

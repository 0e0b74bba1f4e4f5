"""Headless Chromium over its debugging pipe: opens a page, says what it asked for and complained of, takes a picture.

Standard library only. The browser has a fresh profile and cannot resolve names: a request of a page to the network is
recorded, and fails.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Pixels of a page that a picture shows; a thousand devices make a page of 100,000.
_TALLEST = 8000
#: What the browser does of its own accord is switched off.
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe",
)  # fmt: skip


def find() -> str | None:
    """Returns the browser's path, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Visit:
    """One page that was opened: its console messages, its requests, and the width that it needed."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    content_width: float = 0.0
    content_height: float = 0.0
    small_texts: list[str] = field(default_factory=list)
    title: str = ""
    measured: Any = None
    screenshot: bytes = b""


class Browser:
    """A running browser; `visit` opens one page in a tab of its own."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._last = 0
        self._events: list[dict[str, Any]] = []

    def visit(
        self,
        url: str,
        *,
        width: int,
        height: int = 800,
        dark: bool = False,
        scripts: bool = False,
        measure: str = "null",
        navigates: bool = False,
    ) -> Visit:
        """Opens `url` in a window of `width` by `height` CSS pixels; `scripts` lets the page run its own.

        `measure` is an expression for the browser to evaluate before the picture is taken, whatever `scripts` says;
        with `navigates`, it leads to another page, whose picture is taken once it is loaded.
        """
        visit = Visit()
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]

        def call(method: str, **parameters: Any) -> dict[str, Any]:
            return self._call(method, parameters, session)

        for domain in ("Page", "Network", "Log", "Runtime"):
            call(f"{domain}.enable")
        call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        call("Emulation.setEmulatedMedia", features=[scheme])
        call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._events.clear()
        call("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired", session)
        visit.measured = call("Runtime.evaluate", expression=measure, returnByValue=True)["result"].get("value")
        if navigates:
            self._wait_for("Page.loadEventFired", session, times=2)
        metrics = call("Page.getLayoutMetrics")["cssContentSize"]
        visit.content_width, visit.content_height = metrics["width"], metrics["height"]
        clip = {"x": 0, "y": 0, "width": metrics["width"], "height": min(metrics["height"], _TALLEST), "scale": 1}
        picture = call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        visit.screenshot = base64.b64decode(picture["data"])
        for event in self._events:
            if event.get("sessionId") == session:
                _note(visit, event)
        call("Emulation.setScriptExecutionDisabled", value=False)
        visit.title = call("Runtime.evaluate", expression="document.title")["result"].get("value", "")
        visit.small_texts = call("Runtime.evaluate", expression=_SMALL_TEXTS, returnByValue=True)["result"]["value"]
        self._call("Target.closeTarget", {"targetId": target})
        return visit

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _wait_for(self, method: str, session: str, times: int = 1) -> None:
        while sum(e.get("method") == method and e.get("sessionId") == session for e in self._events) < times:
            self._events.append(self._next())

    def _next(self, patience: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._read, 1 << 20) if ready else b""
            if not block:
                raise RuntimeError("the browser ended, or said nothing for a minute")
            self._buffer += block
        message, self._buffer = self._buffer.split(b"\0", 1)
        parsed: dict[str, Any] = json.loads(message)
        return parsed


#: Every text under 11 CSS pixels: a phone's reader cannot read it.
_SMALL_TEXTS = """[...document.querySelectorAll('body *')]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length)
  .filter(e => e.tagName !== 'title' && parseFloat(getComputedStyle(e).fontSize) < 11)
  .map(e => e.textContent.trim().slice(0, 60))"""


def _note(visit: Visit, event: dict[str, Any]) -> None:
    parameters = event.get("params", {})
    if event["method"] == "Network.requestWillBeSent":
        visit.requests.append(parameters["request"]["url"])
    elif event["method"] == "Log.entryAdded":
        visit.console.append(parameters["entry"]["text"])
    elif event["method"] == "Runtime.consoleAPICalled":
        visit.console.append(" ".join(str(item.get("value", item)) for item in parameters["args"]))
    elif event["method"] == "Runtime.exceptionThrown":
        visit.console.append(parameters["exceptionDetails"]["text"])


@contextlib.contextmanager
def launch() -> Iterator[Browser]:
    """Starts a browser with a fresh profile; ends it, and removes the profile, afterwards."""
    path = find()
    if path is None:
        raise RuntimeError("no Chromium here")
    to_browser, from_here = os.pipe()
    to_here, from_browser = os.pipe()

    def place_pipes() -> None:
        read, write = os.dup(to_browser), os.dup(from_browser)
        os.dup2(read, 3)
        os.dup2(write, 4)

    with tempfile.TemporaryDirectory(prefix="knnkit-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *_QUIET, f"--user-data-dir={profile}", "about:blank"],
            close_fds=False, preexec_fn=place_pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile},
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Browser(from_here, to_here)
        finally:
            os.close(from_here)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_here)


def save(visit: Visit, path: Path) -> None:
    """Keeps a screenshot for a person to look at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(visit.screenshot)

"""Chromium without a window, for tests of what a reader sees."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
ALONE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
"""A browser that asks nothing of the network by itself."""


def needs_chromium(test: Any) -> Any:
    """Mark a test that needs a browser; it is skipped with a reason where there is none."""
    skipped = pytest.mark.skipif(not CHROMIUM, reason="expected chromium on the path, got none: install it to run this")
    return pytest.mark.browser(skipped(test))


def dump_dom(address: str, folder: Path, *options: str, seconds: float = 20) -> str:
    """Return a page's document after its scripts have run."""
    command = [CHROMIUM, "--headless", "--disable-gpu", *ALONE, f"--user-data-dir={folder / 'profile'}", *options]
    if os.geteuid() == 0:  # its sandbox does not work for root
        command.append("--no-sandbox")
    command += [f"--virtual-time-budget={1000 * seconds:.0f}", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def measure_page(
    page: str, script: Path, folder: Path, widths: Sequence[int], schemes: Sequence[str] = ("light", "dark")
) -> list[dict[str, Any]]:
    """Return what a script measures of a page, in frames of these widths in light and in dark.

    The script runs outside the page: what the page forbids itself stays forbidden.
    """
    frame = '<iframe style="border: 0; height: 900px; width: {}px; color-scheme: {}" srcdoc="{}"></iframe>'
    frames = [frame.format(width, scheme, html.escape(page)) for width in widths for scheme in schemes]
    outer = folder / "measured.html"
    head = '<!doctype html><meta charset="utf-8">'
    outer.write_text(f'{head}{"".join(frames)}<pre id="measured"></pre><script>{script.read_text()}</script>')
    found = re.search(r'<pre id="measured">(.+?)</pre>', dump_dom(outer.as_uri(), folder), re.DOTALL)
    assert found is not None, "the script has measured nothing"
    measured: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return measured


def requests_of(page: str, folder: Path) -> list[str]:
    """Return the addresses that a page asks the network for; what the browser asks for itself is left out."""
    file, log = folder / "asks.html", folder / "net.json"
    file.write_text(page)
    dump_dom(file.as_uri(), folder, f"--log-net-log={log}")
    found = json.loads(log.read_text())
    start = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [
        event["params"] for event in found["events"] if event["type"] == start and "url" in event.get("params", {})
    ]
    of_the_page = [params["url"] for params in asked if params.get("initiator") != "not an origin"]
    return [url for url in of_the_page if url.startswith("http")]


class Tab:
    """A page that can be asked and given files, over the browser's debugging pipe."""

    def __init__(self, folder: Path, width: int = 1100, height: int = 900) -> None:
        self._width, self._height = width, height
        to_browser, to_us = os.pipe(), os.pipe()
        given, taken = to_browser[0], to_us[1]
        options = [f"--user-data-dir={folder / 'tab'}", "--hide-scrollbars"]
        # The browser reads commands from file descriptor 3 and answers on 4.
        pipes = f'exec "$0" "$@" 3<&{given} 4>&{taken}'
        command = ["bash", "-c", pipes, CHROMIUM, "--headless", "--disable-gpu", *ALONE, *options]
        command += ["--no-sandbox"] * (os.geteuid() == 0) + ["--remote-debugging-pipe", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(given, taken), stdout=quiet, stderr=quiet)
        for end in (given, taken):
            os.close(end)
        self._commands, self._answers = os.fdopen(to_browser[1], "wb"), os.fdopen(to_us[0], "rb")
        self._number, self._session = 0, ""
        self.requests: list[str] = []
        (target,) = (of for of in self.send("Target.getTargets")["targetInfos"] if of["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._commands.close()
        self._answers.close()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; returns its result once it is there."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != self._number:
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (letter := self._answers.read(1)) != b"\0":
            assert letter, "the browser has ended"
            text += letter
        answer: dict[str, Any] = json.loads(text)
        return answer

    def open(self, address: str) -> None:
        """Go to an address, in a page of the width that a phone or a desk has."""
        size = {"width": self._width, "height": self._height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", **size, mobile=self._width < 600)
        self.send("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Wait until an expression in the page is true; returns its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            text = self.evaluate("document.body.innerText")
            assert time.monotonic() < deadline, f"{expression} did not come true; the page says {text!r}"
            time.sleep(0.2)
        return value

    def give_file(self, selector: str, path: Path) -> None:
        """Choose a file in an input of the page."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self) -> bytes:
        """Return the page as a PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])

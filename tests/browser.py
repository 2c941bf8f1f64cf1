"""Chromium without a window, for tests of what a reader sees."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
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

"""Does the page of an album stay fluent with as many images as it holds?

    python -m benchmarks.speed.album --images EuroSAT          (made pictures without it; --n-files 10000)

Links to the images are predicted by `python -m serving`, without and with `--pictures`. The page is opened in Chromium
as it is: the milliseconds until it is loaded, and those that filtering, turning a page and labelling take until the
page is laid out anew; memory is that of all of the browser's processes, shared pages counted once.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from html import unescape
from pathlib import Path

import psutil

from benchmarks.speed.inference import export_untrained, make_pictures
from benchmarks.speed.many_files import SPEC, _make_links

_MEASURE = """<script>
window.addEventListener("load", () => {
  const found = {loaded: performance.now()};
  const time = (name, act) => {
    const start = performance.now();
    act();
    document.body.offsetHeight;  // the browser lays the page out before it tells
    found[name] = performance.now() - start;
  };
  const choose = (id, value) => {
    document.getElementById(id).value = value;
    for (const name of ["input", "change"]) document.getElementById(id).dispatchEvent(new Event(name));
  };
  time("probability", () => choose("probability", 20));
  choose("probability", 100);
  time("class", () => choose("class", document.getElementById("class").options[1].value));
  time("all classes", () => choose("class", ""));
  time("next page", () => document.getElementById("next").click());
  time("label", () => document.querySelector(".choice").click());
  found.elements = document.getElementsByTagName("*").length;
  document.body.dataset.found = JSON.stringify(found);
});
</script></body>"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of image files; by default 200 pictures are made")
    parser.add_argument("--n-files", type=int, default=10_000)
    options = parser.parse_args()
    browser = shutil.which("chromium") or sys.exit("error: chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = export_untrained(SPEC, scratch)
        images = options.images or make_pictures(scratch / "pictures", 200, 400)
        links = _make_links(images, options.n_files, scratch / "links")
        command = [sys.executable, "-m", "serving", str(model), str(links), str(scratch / "out.csv")]
        print(f"table alone: {_seconds(command):.1f} s")
        album = scratch / "album"
        print(f"table and album: {_seconds([*command, '--pictures', str(album)]):.1f} s")
        thumbnails = sum(path.stat().st_size for path in (album / "thumbnails").iterdir())
        print(f"page {(album / 'index.html').stat().st_size / 1e6:.2f} MB, thumbnails {thumbnails / 1e6:.1f} MB")
        for _ in range(3):
            _open(browser, album / "index.html", scratch)


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def _open(browser: str, page: Path, scratch: Path) -> None:
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text("utf-8").replace("</body>", _MEASURE), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--timeout=4000", "--dump-dom"]
    command = [browser, *options, f"--user-data-dir={tempfile.mkdtemp(dir=scratch)}", measured.as_uri()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        peak, found = 0, ""
        while not found:
            peak = max(peak, _memory(psutil.Process(process.pid)))
            found = _text(process, seconds=0.05)
    (text,) = re.findall('data-found="(.*?)"', found)
    print({name: round(value) for name, value in json.loads(unescape(text)).items()} | {"MB": round(peak / 1e6)})


def _text(process: subprocess.Popen[str], seconds: float) -> str:
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return ""


def _memory(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.Error):  # one has ended
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()

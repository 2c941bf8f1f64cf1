"""Does a job over very many files keep its memory, and every file, when it is killed in the middle?

    python -m benchmarks.speed.many_files --images EuroSAT          (made pictures without it; --n-files 100000)

Links to the images are predicted by `python -m serving`. The process is killed with SIGKILL once half of the files are
done, and the same command is given again. Resident memory is read every half second, and compared with what it was
after the first ten thousand files.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks.speed.inference import export_untrained, make_pictures
from serving.job import PART_FILES
from tl_core.networks.backbones import BackboneSpec

SPEC = BackboneSpec("resnet10_small", 32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of image files; by default 200 pictures are made")
    parser.add_argument("--n-files", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = export_untrained(SPEC, scratch)
        images = options.images or make_pictures(scratch / "pictures", 200, 64)
        links = _make_links(images, options.n_files, scratch / "links")
        output = scratch / "out.csv"
        command = [sys.executable, "-m", "serving", str(model), str(links), str(output)]
        killed = _run(command, output, options.n_files, kill_at=options.n_files // 2)
        assert not output.exists(), "it was done before it could be killed"
        _report("until it was killed", killed)
        _report("the same command again", _run(command, output, options.n_files))
        with output.open(newline="", encoding="utf-8") as file:
            rows = Counter(row["file"] for row in csv.DictReader(file))
        once = sum(count == 1 for count in rows.values())
        print(f"rows: {rows.total():,}, files: {len(rows):,} of {options.n_files:,}, exactly once: {once:,}")
        assert set(rows) == {str(path) for path in links.iterdir()}


def _make_links(images: Path, n_files: int, folder: Path) -> Path:
    found = sorted(path.resolve() for path in images.rglob("*.jpg"))
    folder.mkdir()
    for index in range(n_files):
        os.symlink(found[index % len(found)], folder / f"{index:07d}.jpg")  # noqa: PTH211 - a path object each is slow
    return folder


Memory = list[tuple[int, float]]
"""Files that were done, and MiB resident, again and again."""


def _run(command: list[str], output: Path, n_files: int, kill_at: int = 0) -> Memory:
    memory: Memory = []
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            done = PART_FILES * len(list(output.with_name(f".{output.name}.parts").glob("*.csv")))
            if kill_at and done >= kill_at:
                process.kill()
                break
            with watched.oneshot():
                if watched.status() != psutil.STATUS_ZOMBIE:
                    memory.append((min(done, n_files), watched.memory_info().rss / 2**20))
            time.sleep(0.5)
    return memory


def _report(title: str, memory: Memory) -> None:
    started = memory[0][0]
    warm = [(done, resident) for done, resident in memory if done >= started + 10_000]
    first, last, most = warm[0], warm[-1], max(resident for _, resident in warm)
    print(
        f"{title}: {first[1]:.1f} MiB after {first[0]:,} files, {last[1]:.1f} MiB after {last[0]:,}, "
        f"at most {most:.1f} MiB: {most / first[1] - 1:+.1%}"
    )


if __name__ == "__main__":
    main()

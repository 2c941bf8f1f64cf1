"""`prepare`: the page that it keeps of a data set."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from pipelines.configs.fields import ROOT, make_config
from pipelines.prepare import PrepareConfig, run
from pipelines.report import ReportConfig
from pipelines.report import run as write_report
from pipelines.results import data_sheet
from pipelines.results.data_sheet import read_pictures, read_sheet
from tests.conftest import write_colour_images
from tl_core.data.sizes import count_sizes
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

NASTY = "<b>owl & co"


def prepared(data: Path | str, **options: object) -> str:
    return run(make_config(PrepareConfig, data=str(data), image_size=16, **options))


def page_of(run_id: str) -> str:
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report.html")).read_text()


@pytest.fixture
def untidy(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes with a broken file, a copy, a note and a blank image among them."""
    monkeypatch.chdir(tmp_path)
    data = write_colour_images(tmp_path / "data", n_per_class=20)
    (data / "blue").rename(data / NASTY)
    shutil.copy(data / "red" / "000.png", data / "red" / "copy.png")
    (data / "red" / "cut.png").write_bytes((data / "red" / "001.png").read_bytes()[:100])
    (data / "green" / "note.txt").touch()
    Image.new("RGB", (50, 40), "white").save(data / "green" / "blank.png")
    return data


def test_the_page_shows_each_class_and_says_what_is_wrong(untidy: Path) -> None:
    run_id = prepared(untidy, unreadable="skip")
    text = page_of(run_id)
    assert "62 images of 3 classes, 20 to 21 of each" in text
    assert "1 file cannot be read." in text
    assert NASTY not in text
    assert text.count("data:image/jpeg") == 3 * 8 + 2
    for words in ("red/cut.png", "green/note.txt", "green/blank.png", "copy.png", "2 images show the same"):
        assert words in text
    of_classes, (group,) = read_pictures(run_id)
    assert [len(table) for table in of_classes] == [8, 8, 8]
    assert set(group["file"]) == {"red/000.png", "red/copy.png"}


def test_the_sizes_are_those_of_the_files(untidy: Path) -> None:
    sheet = read_sheet(prepared(untidy, unreadable="skip"))
    assert sheet.n_measured == 62
    assert [50, 40, 1] in [list(row) for row in sheet.sizes]
    assert count_sizes(str(untidy), ["green/blank.png", "red/cut.png"]) == {(50, 40): 1, **_size_of_cut(untidy)}


def _size_of_cut(data: Path) -> dict[tuple[int, int], int]:
    with Image.open(data / "red" / "001.png") as image:  # the beginning of a cut file is whole
        return {image.size: 1}


def test_a_refused_data_set_has_its_page_too(untidy: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 63 images .* cannot be read"):
        prepared(untidy)
    (failed,) = mlflow.search_runs(output_format="list")
    assert failed.info.status == "FAILED"
    assert "red/cut.png" in page_of(failed.info.run_id)


def test_a_page_can_be_written_again(untidy: Path, tmp_path: Path) -> None:
    run_id = prepared(untidy, unreadable="skip")
    write_report(ReportConfig(run=run_id, output=str(tmp_path / "page.html")))
    assert "62 images of 3 classes" in (tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("store")
def test_the_page_of_a_thousand_classes_is_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(1000):
        folder = tmp_path / "data" / f"class {number}"
        folder.mkdir(parents=True)
        for position in range(1 if number == 700 else 2):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{position}.png")
    text = page_of(prepared(tmp_path / "data"))
    assert "Of 1,000 classes, the 50 with the fewest images are shown." in text
    assert "1,999 images of 1,000 classes, 1 to 2 of each" in text
    assert "class 700: 1 image" in text
    assert len(re.findall("data:image/jpeg", text)) == 99
    assert len(text) < 1_000_000


def test_among_many_images_near_duplicates_are_not_looked_for(untidy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sheet, "MOST_SEARCHED", 10)
    run_id = prepared(untidy, unreadable="skip")
    assert "n_near_duplicates" not in mlflow.get_run(run_id).data.metrics, "what was not counted is not 0"
    text = page_of(run_id)
    assert "near-duplicates and sizes are not looked for here among more than 10 images" in text
    assert ">Sizes</h2>" not in text


def test_a_look_at_many_images_waits_for_no_library_of_networks_or_charts(untidy: Path) -> None:
    code = f"""
import sys
from pipelines.configs.data import Data
from pipelines.prepare import PrepareConfig, run
from pipelines.results import data_sheet
data_sheet.MOST_SEARCHED = 10
run(PrepareConfig(data=Data(data={str(untidy)!r}, unreadable="skip")))
print("loaded:", {{"torch", "optuna", "sklearn", "matplotlib", "plotly"}} & set(sys.modules))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=99
    )
    assert "loaded: set()" in ran.stdout

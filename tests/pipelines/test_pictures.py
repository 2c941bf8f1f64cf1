"""Pictures of predictions: which are drawn, and which mistakes come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import pictures
from pipelines.pictures import Album, draw_mistakes, draw_prediction, read_predictions
from serving.tables import Prediction, join_parts, write_part
from tests.conftest import write_colour_images
from tl_core.errors import InputError

CLASSES = ("blue", "green", "red")


def predicted(file: Path, best: str, probability: float) -> Prediction:
    rest = [name for name in CLASSES if name != best]
    return Prediction(str(file), best, ((best, probability), *((name, (1 - probability) / 2) for name in rest)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_colour_images(tmp_path / "images", n_per_class=3, size=16)


def test_a_picture_shows_image_class_and_probabilities(images: Path) -> None:
    figure = draw_prediction(predicted(images / "red" / "000.png", "red", 0.9), "red")
    left, right = figure.axes
    assert left.get_title() == "red 90.0 %"
    shown = np.asarray(left.images[0].get_array())
    assert shown.mean(axis=(0, 1)).argmax() == 0  # the red one
    assert [bar.get_width() for bar in right.patches] == pytest.approx([90, 5, 5])
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["red", "blue", "green"]


def test_a_mistake_says_what_the_image_is(images: Path) -> None:
    figure = draw_mistakes([predicted(images / "red" / "000.png", "blue", 0.8)], ["red"])
    assert figure.axes[0].get_title() == "blue 80.0 %\n(is red)"


def test_the_sheet_holds_the_most_confident_mistakes_in_order(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_SHEET_COLUMNS", 2)
    monkeypatch.setattr(pictures, "_SHEET_ROWS", 1)
    drawn: list[list[float]] = []

    def spy(predictions: list[Prediction], labels: list[str]) -> object:
        drawn.append([prediction.top[0][1] for prediction in predictions])
        assert labels == ["red", "red"]
        return draw_mistakes(predictions, labels)

    monkeypatch.setattr(pictures, "draw_mistakes", spy)
    album = Album(tmp_path / "album")
    rows = [
        predicted(images / "red" / "000.png", "blue", 0.6),
        predicted(images / "red" / "001.png", "green", 0.9),
        predicted(images / "red" / "002.png", "blue", 0.7),
        predicted(images / "blue" / "000.png", "blue", 0.99),
    ]
    assert "mistakes.png" in album.draw(rows, CLASSES)
    assert drawn == [[0.9, 0.7]]
    names = sorted(path.name for path in (tmp_path / "album").iterdir())
    assert names == ["001-000.png", "002-001.png", "003-002.png", "004-000.png", "mistakes.png"]
    with Image.open(tmp_path / "album" / "mistakes.png") as sheet:
        assert sheet.width > sheet.height


def test_without_labels_there_is_no_sheet_and_only_so_many_pictures(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURES", 2)
    (images / "red").rename(images / "unknown")
    album = Album(tmp_path / "album")
    rows = [predicted(images / "unknown" / f"00{i}.png", "blue", 0.6) for i in range(3)]
    broken = Prediction("broken.jpg", "", (), "truncated")
    assert album.draw([broken, *rows], CLASSES) == f"2 pictures in {tmp_path / 'album'}"
    assert len(list((tmp_path / "album").iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        Album(tmp_path / "file" / "album")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_is_read_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    rows = [
        Prediction("a.png", "nan", (("nan", 0.75), ("1", 0.25))),
        Prediction("b.png", "", (("1", 0.5), ("nan", 0.5))),
        Prediction("c.png", "", (), "truncated"),
    ]
    write_part(rows, tmp_path / f"part{suffix}", top_k=3)
    join_parts([tmp_path / f"part{suffix}"], tmp_path / f"table{suffix}", top_k=3)
    assert list(read_predictions(tmp_path / f"table{suffix}")) == rows

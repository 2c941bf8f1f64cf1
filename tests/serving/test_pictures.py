"""Pictures of predictions: which are drawn, what they show, and which mistakes come first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from serving import pictures as drawing
from serving.answers import Answer
from serving.pictures import draw_album, draw_answer, draw_mistakes, make_folder
from serving.sources import ImageFile, open_source
from serving.tables import Prediction, join_parts, write_part
from tests.serving.conftest import CLASS_NAMES, below
from tests.serving.test_sources import as_zip
from tl_core.errors import InputError
from tl_core.images.decoding import ResizeRule


def predicted(file: str, best: str, probability: float) -> Prediction:
    rest = [name for name in CLASS_NAMES if name != best]
    return Prediction(file, best, ((best, probability), *((name, (1 - probability) / 2) for name in rest)))


def answer(file: Path, best: str, probability: float, label: str = "") -> Answer:
    return Answer(predicted(str(file), best, probability), ImageFile(str(file), lambda: "", file.read_bytes), label)


def drawn_of(
    spec: Path | str,
    rows: Sequence[Prediction],
    folder: Path,
    class_names: Sequence[str] = CLASS_NAMES,
    rule: ResizeRule = "crop",
) -> str:
    """Write a table of predictions for a source and draw it."""
    table = folder / "table.csv"
    write_part(rows, folder / "part.csv", top_k=3)
    join_parts([folder / "part.csv"], table, top_k=3)
    make_folder(folder / "album", str(spec))
    with open_source(str(spec)) as source:
        return draw_album(source, table, class_names, folder / "album", rule)


def count_pixels(image: Image.Image, colour: str) -> int:
    return int((np.asarray(image) == ImageColor.getrgb(colour)).all(-1).sum())


def longest_run(image: Image.Image, colour: str) -> int:
    """Pixels of this colour in the row that has most of them."""
    return int((np.asarray(image) == ImageColor.getrgb(colour)).all(-1).sum(1).max())


def test_a_picture_shows_the_image_and_its_probabilities_as_bars(pictures: Path) -> None:
    picture = draw_answer(answer(pictures / "red" / "000.png", "red", 0.9, "red"))
    whole = np.asarray(picture).astype(int)
    shown = whole[56 : 56 + 224, 12 : 12 + 224]
    assert shown.mean((0, 1)).argmax() == 0  # the red one
    assert np.abs(shown.mean((0, 1)) - (200, 40, 40)).max() < 10
    assert longest_run(picture, "#0072b2") == 180  # 90 % of 200 pixels
    assert longest_run(picture, "#bbbbbb") == 10
    assert count_pixels(picture, "#bbbbbb") % 10 == 0  # two bars of the same length


@pytest.mark.parametrize(("rule", "left"), [("crop", (0, 0, 255)), ("stretch", (255, 0, 0))])
def test_pictures_are_made_square_as_the_classifier_makes_them(
    rule: ResizeRule, left: tuple[int, int, int], tmp_path: Path
) -> None:
    wide = Image.new("RGB", (90, 30), "blue")
    wide.paste("red", (0, 0, 30, 30))
    (tmp_path / "wide").mkdir()
    wide.save(tmp_path / "wide" / "000.png")
    drawn_of(tmp_path / "wide", [predicted(str(tmp_path / "wide" / "000.png"), "red", 0.9)], tmp_path, rule=rule)
    album = tmp_path / "album"
    with Image.open(album / "thumbnails" / "00000.jpg") as thumbnail, Image.open(album / "001-000.png") as picture:
        for found in (thumbnail.getpixel((20, 90)), picture.getpixel((12 + 20, 56 + 90))):
            assert np.abs(np.subtract(found, left)).max() < 10


@pytest.mark.parametrize(("label", "colour"), [("red", "#009e73"), ("blue", "#d55e00"), ("", "#000000")])
def test_the_title_says_by_its_colour_whether_it_is_right(label: str, colour: str, pictures: Path) -> None:
    picture = draw_answer(answer(pictures / "red" / "000.png", "red", 0.9, label))
    title = picture.crop((12, 12, 12 + 224, 56))
    found = {name for name in ("#009e73", "#d55e00", "#000000") if count_pixels(title, name)}
    assert found == {colour}


def test_below_the_least_probability_the_title_says_that_no_label_was_given(pictures: Path) -> None:
    given = answer(pictures / "red" / "000.png", "red", 0.9, "red")
    refused = replace(given, prediction=replace(given.prediction, label=""))
    title, without = (draw_answer(one).crop((12, 12, 12 + 224, 56)) for one in (given, refused))
    assert (count_pixels(title, "#009e73") > 0, count_pixels(without, "#009e73")) == (True, 0)
    assert count_pixels(without, "#000000") > count_pixels(title, "#009e73")  # more words


def test_the_sheet_holds_the_most_confident_mistakes_in_order(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_SHEET_COLUMNS", 2)
    monkeypatch.setattr(drawing, "_SHEET_ROWS", 1)
    drawn: list[tuple[str, str, float]] = []

    def spy(answers: Sequence[Answer], rule: ResizeRule) -> Image.Image:
        drawn.extend((Path(a.file.name).name, a.label, a.prediction.top[0][1]) for a in answers)
        return draw_mistakes(answers, rule)

    monkeypatch.setattr(drawing, "draw_mistakes", spy)
    files = below(pictures)  # four blue, four green, four red
    rows = [predicted(file, Path(file).parent.name, 0.99) for file in files]
    for row, best, probability in ((0, "green", 0.6), (6, "red", 0.9), (9, "blue", 0.7)):
        rows[row] = predicted(files[row], best, probability)
    assert drawn_of(pictures, rows, tmp_path).startswith("12 pictures in ")
    assert drawn == [("002.png", "green", 0.9), ("001.png", "red", 0.7)]
    names = sorted(path.name for path in (tmp_path / "album").iterdir())
    assert names == [*(f"{n + 1:03d}-{n % 4:03d}.png" for n in range(12)), "index.html", "mistakes.png", "thumbnails"]
    with Image.open(tmp_path / "album" / "mistakes.png") as sheet:
        assert sheet.width > sheet.height
        left, right = (np.asarray(sheet)[80:250, x : x + 200].mean((0, 1)).argmax() for x in (20, 260))
        assert (left, right) == (1, 0)  # a green one, then a red one


def test_what_is_in_an_archive_is_drawn_too(pictures: Path, tmp_path: Path) -> None:
    spec = as_zip(pictures, tmp_path)
    with open_source(spec) as source:
        rows = [predicted(file.name, "red", 0.8) for file in source.files()]
    assert "12 pictures in " in drawn_of(spec, rows, tmp_path)
    with Image.open(tmp_path / "album" / "001-000.png") as picture:
        assert np.asarray(picture)[60:270, 20:220].mean((0, 1)).argmax() == 2  # a blue one, taken for red


def test_without_labels_there_is_no_sheet_and_only_so_many_pictures(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "MAX_PICTURES", 2)
    for name in CLASS_NAMES:
        (pictures / name).rename(pictures / f"a {name} folder")
    (pictures / "0.png").write_text("no picture")
    broken = Prediction(str(pictures / "0.png"), "", (), "truncated")
    rows = [broken, *(predicted(file, "blue", 0.6) for file in below(pictures)[1:])]
    album = tmp_path / "album"
    said = f"2 pictures in {album}; to look through and correct: {album / 'index.html'}"
    assert drawn_of(pictures, rows, tmp_path) == said
    assert len(list(album.glob("*.png"))) == 2


def test_where_every_label_is_right_there_is_no_sheet_of_mistakes(pictures: Path, tmp_path: Path) -> None:
    rows = [predicted(file, Path(file).parent.name, 0.9) for file in below(pictures)]
    assert drawn_of(pictures, rows, tmp_path).endswith("index.html")
    assert not (tmp_path / "album" / "mistakes.png").exists()


def test_pictures_of_an_earlier_album_are_gone_and_other_files_stay(pictures: Path, tmp_path: Path) -> None:
    rows = [predicted(file, Path(file).parent.name, 0.9) for file in below(pictures)]
    drawn_of(pictures, rows, tmp_path)
    (tmp_path / "album" / "012-old.png").write_bytes(b"of an earlier album")
    (tmp_path / "album" / "mine.png").write_bytes(b"of somebody else")
    drawn_of(pictures, rows, tmp_path)
    assert not (tmp_path / "album" / "012-old.png").exists()
    assert (tmp_path / "album" / "mine.png").exists()
    assert len(list((tmp_path / "album").glob("*-*.png"))) == len(rows)


def test_an_image_that_is_gone_has_the_reason_in_its_place(pictures: Path) -> None:
    file = pictures / "red" / "000.png"
    gone = answer(file, "red", 0.9)
    whole = draw_answer(gone)
    file.unlink()
    without = draw_answer(gone)
    assert without.size == whole.size
    assert np.asarray(without)[80:270, 12:236].mean() == 255


def test_any_name_of_a_file_or_a_class_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in (b"\xff\xfe.png", b"x" * 250 + b".png", "図\nß.png".encode()):
        Image.new("RGB", (16, 16), "red").save(os.fsdecode(os.path.join(os.fsencode(folder), name)), "PNG")  # noqa: PTH118
    with open_source(str(folder)) as source:
        names = [file.name for file in source.files()]
    long = "図 $x$ " + "long " * 50
    rows = [Prediction(name, long, ((long, 1.0), ("", 0.0))) for name in names]
    assert "3 pictures in " in drawn_of(folder, rows, tmp_path, [long, ""])


def test_other_files_than_those_of_the_table_are_not_drawn(pictures: Path, tmp_path: Path) -> None:
    rows = [predicted(file, "red", 0.9) for file in below(pictures)]
    (pictures / "blue" / "000.png").unlink()
    with pytest.raises(InputError, match="the images have changed since"):
        drawn_of(pictures, rows, tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        make_folder(tmp_path / "file" / "album", "images")


@pytest.mark.parametrize("name", ["album", "red/album", "."])
def test_pictures_are_not_put_among_the_images(name: str, pictures: Path) -> None:
    with pytest.raises(InputError, match="where they would be taken for images"):
        make_folder(pictures / name, str(pictures))
    assert not (pictures / "album").exists()


def test_a_page_that_is_no_album_is_not_written_over(pictures: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "thumbnails").mkdir(parents=True)
    (site / "thumbnails" / "00001.jpg").write_text("mine")
    (site / "index.html").write_text("<!doctype html>")
    with pytest.raises(InputError, match=r"site has an index.html that is no album; give another folder"):
        make_folder(site, str(pictures))
    (site / "index.html").unlink()
    rows = [predicted(file, "red", 0.9) for file in below(pictures)[:1]]
    site.rename(tmp_path / "album")
    drawn_of(below(pictures)[0], rows, tmp_path)
    assert (tmp_path / "album" / "thumbnails" / "00001.jpg").read_text() == "mine"
    make_folder(tmp_path / "album", str(pictures))


def test_a_disk_that_is_full_is_one_sentence(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"pictures cannot be written to .*\(No space left on device\)"):
        drawn_of(pictures, [predicted(file, "red", 0.9) for file in below(pictures)], tmp_path)

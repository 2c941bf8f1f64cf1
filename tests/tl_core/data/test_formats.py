"""Data as people have them: the classes that are meant, a sentence on what was left out, or one that asks."""

from __future__ import annotations

import csv
import json
import os
import tarfile
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import PngImagePlugin

from serving.sources import open_source
from tests.tl_core.made_formats import CAT_AND_DOG, N_IMAGES, contents, draw, encode, put, tarred, zipped
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.errors import DataWarning, InputError
from tl_core.images.decoding import decode_image

BOTH = {"cat": N_IMAGES, "dog": N_IMAGES}
ROWS = [[f"img/{name}", name[:3]] for name in CAT_AND_DOG]
HEAD = ["image", "label"]


def load(spec: Path, class_level: int = 0) -> ImageDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return load_dataset(str(spec), 16, class_level=class_level)


def refused(spec: Path) -> str:
    with pytest.raises(InputError) as raised:
        load(spec)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def said(dataset: ImageDataset) -> str:
    return "; ".join(dataset.notices)


def below(*prefixes: str) -> list[str]:
    return [prefix + name for prefix in prefixes for name in CAT_AND_DOG]


@pytest.mark.parametrize(
    ("names", "counts", "notice"),
    [
        ([f"{n[:3]}/day{i % 2}/{n[4:]}" for i, n in enumerate(CAT_AND_DOG)], BOTH, "no classes: day0, day1; class_lev"),
        ([*CAT_AND_DOG, "cat/@eaDir/cat0.png/THUMB.png", "@eaDir/x.png"], BOTH, "left out: @eaDir, cat/@eaDir"),
        ([*CAT_AND_DOG, ".cache/x.png", "__MACOSX/cat/y.png", "Thumbnails/z.png"], BOTH, ".cache, Thumbnails, __MACO"),
        ([*below("seg_train/"), "seg_pred/1.png"], BOTH, "1 images in no class folder, left out: seg_pred"),
        ([*below("a/a_train/"), "a/a_pred/a_pred/1.png"], BOTH, "no class folder, left out: a/a_pred/a_pred"),
        ([*below("train/"), "test/1.png"], BOTH, "no class folder, left out: test"),
        ([*below("labelled/"), "unlabelled/1.png"], BOTH, "no class folder, left out: unlabelled"),
        (below("2750/"), BOTH, ""),
        (below("archive/2024/flowers/"), BOTH, ""),
        ([*CAT_AND_DOG, "wasp/1.tif", "wasp/2.TIFF", "wasp/3.gif"], {**BOTH, "wasp": 3}, ""),
    ],
)
def test_the_first_level_names_the_class(names: list[str], counts: dict[str, int], notice: str, tmp_path: Path) -> None:
    files = contents(list(dict.fromkeys(names)))
    folder = load(put(tmp_path / "data", files))
    archive = load(zipped(tmp_path / "data.zip", files))
    assert folder.class_counts() == archive.class_counts() == counts
    assert notice in said(folder)
    assert notice.removeprefix("left out: ") in said(archive)
    assert folder.fingerprint == archive.fingerprint


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (below("train/", "test/"), {"train", "test"}),
        (below("x/Training/", "x/validation/"), {"train", "val"}),
        (below("train_set/", "test/"), {"train", "test"}),
        (below("seg_train/seg_train/", "seg_test/seg_test/"), {"train", "test"}),
        ([f"{n[:3]}/{part}/{n[4:]}" for part in ("train", "test") for n in CAT_AND_DOG], {"train", "test"}),
    ],
)
def test_parts_are_known_above_and_below_the_classes(names: list[str], parts: set[str], tmp_path: Path) -> None:
    dataset = load(put(tmp_path, contents(names)))
    assert dataset.class_counts() == {name: 2 * count for name, count in BOTH.items()}
    assert set(dataset.parts) == parts


TWO_WAYS = [
    ([*below("labelled/"), "more/1.png", "more/2.png"], {1: {"labelled": 8, "more": 2}, 2: BOTH}),
    ([*below("train/", "extra/")], {1: {"train": 8, "extra": 8}, 2: {"cat": 8, "dog": 8}}),
    ([*below("bottle/train/", "cup/test/")], {1: {"bottle": 8, "cup": 8}, 3: {"cat": 8, "dog": 8}}),
]


@pytest.mark.parametrize(("names", "readings"), TWO_WAYS)
def test_what_may_be_read_in_two_ways_is_asked_about(
    names: list[str], readings: dict[int, dict[str, int]], tmp_path: Path
) -> None:
    sentence = refused(put(tmp_path, contents(names)))
    for level, counts in readings.items():
        assert f"class_level={level} for the classes {', '.join(sorted(counts))}" in sentence
        assert load(tmp_path, level).class_counts() == counts


def test_a_part_beside_class_folders_is_asked_about(tmp_path: Path) -> None:
    put(tmp_path, contents([*CAT_AND_DOG, "test/1.png"]))
    assert "has test beside cat, dog: expected class folders, or train, val and test" in refused(tmp_path)
    assert load(tmp_path, 1).class_counts() == {**BOTH, "test": 1}


def test_the_folder_that_holds_the_image_may_be_the_class(tmp_path: Path) -> None:
    put(tmp_path, contents(["p7/ill/1.png", "p7/well/2.png", "p8/ill/3.png"]))
    assert load(tmp_path, -1).class_counts() == load(tmp_path, 2).class_counts() == {"ill": 2, "well": 1}


def test_a_class_whose_format_is_not_read_does_not_vanish(tmp_path: Path) -> None:
    put(tmp_path, {**contents(CAT_AND_DOG), "wasp/1.heic": b"ftypheic"})
    assert "class wasp has no image that can be read, the first file is wasp/1.heic; expected png" in refused(tmp_path)


def test_names_in_two_unicode_forms_are_one_class_and_in_two_cases_are_asked_about(tmp_path: Path) -> None:
    names = [f"{unicodedata.normalize(form, 'café')}/{form}.png" for form in ("NFC", "NFD")]
    joined = load(zipped(tmp_path / "a.zip", contents([*names, "dog/1.png"])))
    assert joined.class_counts() == {"café": 2, "dog": 1}
    assert "café in two Unicode forms" in said(joined)
    both = contents([*below("train/"), *(name.title() for name in below("test/"))])
    sentence = refused(zipped(tmp_path / "b.zip", both))
    assert "'Cat' / 'cat' and 'Dog' / 'dog'" in sentence


def test_single_letters_may_differ_in_case_alone(tmp_path: Path) -> None:
    dataset = load(zipped(tmp_path / "a.zip", contents(["A/1.png", "a/2.png"])))
    assert dataset.class_names == ("A", "a")


@pytest.mark.parametrize(
    ("name", "sentence"), [("nan", "a class named 'nan', which is how"), ("cat ", "'cat' / 'cat '")]
)
def test_names_that_are_no_class_names_are_refused(name: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(zipped(tmp_path / "a.zip", contents([*CAT_AND_DOG, f"{name}/1.png"])))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_are_read_however_they_are_compressed_with_links_inside(mode: str, tmp_path: Path) -> None:
    links = [
        ("set/cat/link.png", "cat0.png", tarfile.SYMTYPE),
        ("set/cat/chain.png", "link.png", tarfile.SYMTYPE),
        ("set/dog/hard.png", "set/dog/dog0.png", tarfile.LNKTYPE),
        ("set/dog/out.png", "/etc/passwd", tarfile.SYMTYPE),
        ("set/dog/up.png", "../../../dog0.png", tarfile.SYMTYPE),
        ("set/dog/ring.png", "ring.png", tarfile.SYMTYPE),
    ]
    path = tarred(tmp_path / f"set.t{mode[2:] or 'ar'}", contents(below("set/")), mode, links)
    dataset = load(path)
    assert dataset.class_counts() == {"cat": N_IMAGES + 2, "dog": N_IMAGES + 1}
    assert "links to no file of the archive, left out: set/dog/out.png, set/dog/up.png, set/dog/ring.png" in said(
        dataset
    )


def test_a_zip_packed_on_windows_is_read(tmp_path: Path) -> None:
    files = {f"pets\\{name}".replace("/", "\\"): content for name, content in contents(CAT_AND_DOG).items()}
    dataset = load(zipped(tmp_path / "a.zip", files))
    assert dataset.class_counts() == BOTH
    assert dataset.file_names[0] == "pets/cat/cat0.png"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """img/cat/cat0.png ..., for tables beside img."""
    return put(tmp_path / "data", contents(below("img/")))


def table(folder: Path, rows: list[list[str]], name: str = "t.csv", encoding: str = "utf-8", **form: str) -> Path:
    with (folder / name).open("w", encoding=encoding, newline="") as file:
        csv.writer(file, **form).writerows(rows)  # type: ignore[arg-type]
    return folder / name


def served(spec: Path) -> set[str]:
    """Names of the images that predictions find, all of them readable."""
    with open_source(str(spec)) as source:
        files = list(source.files())
    assert all(decode_image(file.read(), 16).any() for file in files)
    return {Path(file.name).name for file in files}


def indexed(rows: list[list[str]]) -> list[list[str]]:
    return [[str(number - 1) if number else "", *row] for number, row in enumerate(rows)]


ONE_HOT = [["image", "cat", "dog"], *([path, str(name == "cat"), str(name == "dog")] for path, name in ROWS)]
NUMBERS = [[cell.replace("True", "1.0").replace("False", "0.0") for cell in row] for row in ONE_HOT]


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        ([HEAD, *ROWS], {"delimiter": ";"}),
        ([HEAD, *ROWS], {"delimiter": "\t", "name": "t.tsv"}),
        ([HEAD, *ROWS], {"delimiter": "|", "lineterminator": "\r"}),
        ([HEAD, *ROWS], {"delimiter": "\t", "encoding": "utf-16"}),
        ([HEAD, *ROWS], {"delimiter": ";", "encoding": "utf-16-le"}),
        ([HEAD, *ROWS, ["", ""]], {}),
        (ROWS, {"delimiter": ";"}),
        ([["TRAIN", f"gs://bucket/{path}", name] for path, name in ROWS], {}),
        (indexed([HEAD, *ROWS]), {}),
        ([["", "label"], *ROWS], {}),
        (ONE_HOT, {}),
        (indexed(NUMBERS), {}),
        ([HEAD, *(["C:\\data\\" + path.replace("/", "\\"), name] for path, name in ROWS)], {}),
        ([HEAD, *(["\\\\nas\\share\\" + path.replace("/", "\\"), name] for path, name in ROWS)], {}),
        ([HEAD, *([f"/home/me/data/{path}", name] for path, name in ROWS)], {}),
        ([HEAD, *([f"../data/{path}", name] for path, name in ROWS)], {}),
        ([["image_id", "dx"], *([Path(path).stem, name] for path, name in ROWS)], {}),
        ([HEAD, *([f"{path}  ", f" {name} "] for path, name in ROWS)], {}),
        ([["id", "choice", "image"], *(["1", n, f"/data/upload/1/0a1b2c3d-{Path(p).name}"] for p, n in ROWS)], {}),
        ([["choice", "image"], *([n, f"/data/local-files/?d=x/{p}"] for p, n in ROWS)], {}),
    ],
)
def test_a_table_names_the_same_images_in_training_and_in_predictions(
    rows: list[list[str]], form: dict[str, str], beside: Path
) -> None:
    path = table(beside, rows, **form)
    dataset = load(path)
    assert dataset.class_counts() == BOTH
    assert {Path(name).name for name in dataset.file_names} == served(path) == {Path(name).name for name in CAT_AND_DOG}


def test_labels_of_a_spreadsheet_keep_their_accents(beside: Path) -> None:
    path = table(beside, [HEAD, *([p, n.replace("cat", "chât")] for p, n in ROWS)], encoding="cp1252")
    assert load(path).class_counts() == {"chât": N_IMAGES, "dog": N_IMAGES}
    assert "is no UTF-8, its text is read as cp1252" in said(load(path))


def test_rows_without_a_label_are_counted_and_no_class(beside: Path) -> None:
    path = table(
        beside, [HEAD, *([p, ["nan", "NaN", "", "None"][i % 4] if i < 2 else n] for i, (p, n) in enumerate(ROWS))]
    )
    assert load(path).class_counts() == {"cat": N_IMAGES - 2, "dog": N_IMAGES}
    assert "rows without a label, left out: 2" in said(load(path))


def test_a_doubled_row_counts_once_and_a_second_label_is_refused(beside: Path) -> None:
    assert "rows that repeat an earlier one, counted once: 1" in said(load(table(beside, [HEAD, *ROWS, ROWS[0]])))
    sentence = refused(table(beside, [HEAD, *ROWS, [ROWS[0][0], "dog"]]))
    assert "row 10 of" in sentence
    assert "says that img/cat/cat0.png is 'dog', row 2 of" in sentence
    assert "that it is 'cat'; expected one row per image" in sentence


def test_an_image_in_two_parts_is_refused(beside: Path) -> None:
    rows = [[*HEAD, "split"], *([*row, "train"] for row in ROWS), [*ROWS[0], "test"]]
    assert "is in part test" in refused(table(beside, rows))


def test_labels_joined_by_commas_are_several_and_no_class(beside: Path) -> None:
    path = table(beside, [HEAD, *ROWS[:-1], [ROWS[-1][0], "cat,dog"]])
    assert "(several labels, 'cat,dog')" in refused(path)


def test_json_lines_and_parquet_are_tables_too(beside: Path) -> None:
    (beside / "t.jsonl").write_text("".join(json.dumps({"file_name": p, "label": n}) + "\n" for p, n in ROWS))
    pd.DataFrame(ROWS, columns=["path", "label"]).to_parquet(beside / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        assert load(beside / name).class_counts() == BOTH
        assert len(served(beside / name)) == len(ROWS)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_with_metadata_is_read_as_the_hub_has_it(kind: str, tmp_path: Path) -> None:
    for part in ("train", "test"):
        names = [f"{name}-{part}{number}.png" for name in "xy" for number in range(3)]
        folder = put(tmp_path / part, contents([*names, "unnamed.png"]))
        table(folder, [["file_name", "label"], *([name, name[0]] for name in names)], "metadata.csv")
        if kind == "jsonl":
            lines = [json.dumps({"file_name": name, "label": name[0]}) for name in names]
            (folder / "metadata.csv").unlink()
            (folder / "metadata.jsonl").write_text("\n".join(lines))
    dataset = load(tmp_path)
    assert (dataset.class_counts(), set(dataset.parts)) == ({"x": 6, "y": 6}, {"train", "test"})
    assert "2 images in no table, left out: test/unnamed.png, train/unnamed.png" in said(dataset)
    assert dataset.other_files == (), "the tables were read"


def test_metadata_without_labels_leave_the_classes_to_the_folders(tmp_path: Path) -> None:
    put(tmp_path, contents(CAT_AND_DOG))
    table(tmp_path, [["file_name", "text"], *([name, "an animal"] for name in CAT_AND_DOG)], "metadata.csv")
    assert load(tmp_path).class_counts() == BOTH


def big_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", " " * 2_000_000, zip=True)
    return text


def test_images_whose_pixels_are_whole_are_read_and_said(tmp_path: Path) -> None:
    whole = encode(7, "JPEG")
    files = {
        "a/profile.png": encode(1, icc_profile=bytes(2_000_000)),
        "a/xmp.png": encode(2, pnginfo=big_text()),
        "a/exif.png": encode(3, exif=b"Exif\0\0not a tiff"),
        "b/cut.jpg": whole[:-2],
        "b/zeros.jpg": encode(8, "JPEG")[:-2] + bytes(99),
        "b/frames.gif": encode(5, "GIF", save_all=True, append_images=[draw(6)]),
    }
    dataset = load(put(tmp_path, files))
    assert dataset.class_counts() == {"a": 3, "b": 3}
    for sentence in (
        "2 images have a colour profile or texts that are too large and are left out (2 of a): "
        "a/profile.png, a/xmp.png",
        "1 images have an Exif that cannot be read and is left out (1 of a): a/exif.png",
        "2 images are cut short by their last bytes, their pixels are whole (2 of b): b/cut.jpg, b/zeros.jpg",
        "1 images are the first of several frames (1 of b): b/frames.gif",
    ):
        assert sentence in dataset.notices
    np.testing.assert_array_equal(dataset.images[dataset.file_names.index("b/cut.jpg")], decode_image(whole, 16))


def test_the_same_file_in_two_classes_is_named_with_both(tmp_path: Path) -> None:
    put(tmp_path, {**contents(CAT_AND_DOG), "dog/copy.png": contents(CAT_AND_DOG)["cat/cat0.png"]})
    assert "cat/cat0.png (cat) and dog/copy.png (dog); remove the wrong ones" in said(load(tmp_path))


def test_images_of_one_colour_are_counted(tmp_path: Path) -> None:
    put(tmp_path, contents(CAT_AND_DOG))
    draw(0).resize((1, 1)).save(tmp_path / "dog" / "plain.png")
    assert load(tmp_path).one_colour == ("dog/plain.png",)


def test_what_is_left_out_is_a_warning_of_every_command(tmp_path: Path) -> None:
    put(tmp_path, contents([*CAT_AND_DOG, "@eaDir/x.png"]))
    with pytest.warns(DataWarning, match="hidden and generated folders, left out: @eaDir"):
        load_dataset(str(tmp_path), 16)


def test_a_replaced_file_of_the_same_size_and_time_is_decoded_anew(tmp_path: Path) -> None:
    put(tmp_path / "data", {f"{name}.bmp": encode(n, "BMP") for n, name in enumerate(["a/1", "a/2", "b/3"])})
    before = load(tmp_path / "data")
    path = tmp_path / "data" / "a" / "1.bmp"
    status = path.stat()
    new = tmp_path / "new.bmp"
    new.write_bytes(encode(9, "BMP"))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert load(tmp_path / "data").fingerprint != before.fingerprint


def test_a_folder_of_which_all_is_left_out_is_refused_with_what_was(tmp_path: Path) -> None:
    put(tmp_path, contents(["@cat/1.png", "@dog/2.png"]))
    assert "no images found" in refused(tmp_path)
    assert "hidden and generated folders, left out: @cat, @dog" in refused(tmp_path)

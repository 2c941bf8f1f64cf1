"""A csv of paths and labels: the layouts of ISIC and ChestX-ray, and a sentence for what does not fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.data.specs import list_images
from tl_core.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/red/000.png ... and the csv files of the tests beside images/."""
    write_colour_images(tmp_path / "images", n_per_class=3, size=8)
    return tmp_path


def write(folder: Path, text: str) -> str:
    path = folder / "labels.csv"
    path.write_text(text)
    return str(path)


def entries(spec: str) -> list[tuple[str, str, str]]:
    return [(entry.class_name, entry.name, entry.part) for entry in list_images(spec, Path("unused")).entries]


def refused(spec: str) -> str:
    with pytest.raises(InputError) as raised:
        load_dataset(spec, 8)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_paths_labels_and_parts_are_read(folder: Path) -> None:
    text = "path,label,split\nimages/red/000.png,warm,train\nimages/blue/001.png,cold,Valid\n"
    assert entries(write(folder, text)) == [
        ("cold", "images/blue/001.png", "val"),
        ("warm", "images/red/000.png", "train"),
    ]
    dataset = load_dataset(write(folder, text), 8)
    assert dataset.class_names == ("cold", "warm")
    assert dataset.parts == ("val", "train")
    assert dataset.images[1].mean(axis=(0, 1))[0] > 150  # the red one


def test_a_column_per_class_and_names_without_folder_and_suffix_as_isic_has_them(folder: Path) -> None:
    (folder / "images/red/000.png").rename(folder / "images/red/ISIC_1.png")
    (folder / "images/blue/000.png").rename(folder / "images/blue/ISIC_2.png")
    spec = write(folder, "image,MEL,NV\nISIC_1,1.0,0.0\nISIC_2,0.0,1.0\n")
    assert entries(spec) == [("MEL", "images/red/ISIC_1.png", ""), ("NV", "images/blue/ISIC_2.png", "")]


def test_rows_with_several_labels_as_chestx_has_them_are_unusable_and_may_be_skipped(folder: Path) -> None:
    spec = write(
        folder,
        "Image Index,Finding Labels\nred/000.png,Mass\nblue/000.png,Mass|Edema\nred/001.png,Mass\nblue/001.png,Edema\n",
    )
    assert "1 of 4 images" in refused(spec)
    assert "several labels, 'Mass|Edema'" in refused(spec)
    dataset = load_dataset(spec, 8, unreadable="skip")
    assert dataset.class_counts() == {"Edema": 1, "Mass": 2}


def test_missing_files_are_counted_and_named(folder: Path) -> None:
    spec = write(folder, "file,label\nimages/red/000.png,a\ngone.png,a\nimages/blue/000.png,b\nlost/001.png,b\n")
    assert "2 of 4 images" in refused(spec)
    assert "gone.png (no such file)" in refused(spec)
    dataset = load_dataset(spec, 8, unreadable="skip")
    assert Counter(file.reason for file in dataset.unreadable) == {"no such file": 2}


def test_a_changed_csv_is_read_again(folder: Path) -> None:
    first = load_dataset(write(folder, "file,label\nimages/red/000.png,a\nimages/blue/000.png,b\n"), 8)
    second = load_dataset(write(folder, "file,label\nimages/red/000.png,b\nimages/blue/000.png,aa\n"), 8)
    assert (first.class_names, second.class_names) == (("a", "b"), ("aa", "b"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no rows"),
        ("file,label\n", "has no rows"),
        (
            "picture,label\na.png,red\n",
            "no column of image files; expected one of .*, got picture, label",
        ),
        ("file,colour\na.png,red\n", "no column of labels.*got file, colour"),
        ("image,MEL,NV\na,1,1\nb,0,1\n", "no column of labels"),
        ("file,label\na.png\n", "row 2 of .* has another number of cells than the heading, 2"),
        ("file,label\n../a.png,red\n", "row 2 .*: expected a path below .*, got '../a.png'"),
        ("file,label\n/a.png,red\n", "expected a path below .*, got '/a.png'"),
        ("file,label\n000,red\n", "may be images/blue/000.png or images/green/000.png; give the path"),
        (
            "file,label\nred/000.png,a\nimages/red/000.png,b\n",
            "row 3 .* says that images/red/000.png is 'b', row 2 .* that it is 'a'",
        ),
        ("file,label,split\nred/000.png,a,tset\n", "expected a part train, val or test, got 'tset'"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, text: str, sentence: str) -> None:
    spec = write(folder, text)
    with pytest.raises(InputError, match=sentence):
        list_images(spec, Path("unused"))


def test_a_csv_of_a_million_columns_is_refused_for_its_columns(folder: Path) -> None:
    spec = write(folder, ",".join(f"c{number}" for number in range(1_000_000)) + "\n")
    with pytest.raises(InputError, match=r"the first row of .* has more than 1,048,576 characters; expected a heading"):
        list_images(spec, Path("unused"))


def test_of_many_columns_the_first_are_named(folder: Path) -> None:
    spec = write(folder, ",".join(f"c{number}" for number in range(50_000)) + "\n")
    with pytest.raises(
        InputError, match=r"no column of image files; expected one of .*, got c0, .*, c19 and 49,980 more"
    ):
        list_images(spec, Path("unused"))


def test_five_thousand_classes_may_have_a_column_each(folder: Path) -> None:
    names = [f"a class with a long name {number}" for number in range(5000)]
    rows = [
        ",".join([file, *("1" if column == label else "0" for column in range(5000))])
        for label, file in enumerate(("red/000.png", "blue/000.png"))
    ]
    listing = list_images(write(folder, "\n".join([",".join(["image", *names]), *rows]) + "\n"), Path("unused"))
    assert {entry.class_name for entry in listing.entries} == set(names[:2])


def test_what_is_no_text_is_refused(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"\x00\x81\x99\xff")
    assert "not a readable csv" in refused(str(folder / "labels.csv"))


def test_class_folders_below_train_and_test_say_their_part(tmp_path: Path) -> None:
    for part in ("train", "Valid", "test"):
        write_colour_images(tmp_path / "data" / part, n_per_class=1, size=8, seed=len(part))
    dataset = load_dataset(str(tmp_path / "data"), 8)
    assert dataset.class_names == ("blue", "green", "red")
    assert sorted(dataset.parts) == ["test"] * 3 + ["train"] * 3 + ["val"] * 3


def test_images_right_below_train_and_test_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    write_colour_images(tmp_path / "data", n_per_class=1, size=8)
    for old, new in (("red", "train"), ("green", "val"), ("blue", "test")):
        (tmp_path / "data" / old).rename(tmp_path / "data" / new)
    assert "right below test, train, val; expected" in refused(str(tmp_path / "data"))

"""Whatever Python's csv, zipfile, tarfile and Pillow write is read back as the same images with the same labels."""

from __future__ import annotations

import csv
import io
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.sources import open_source
from tests.tl_core.made_formats import encode, put
from tl_core.data.classes.levels import part_of
from tl_core.data.classes.names import MISSING_LABELS
from tl_core.data.dataset import load_dataset
from tl_core.data.specs import list_images
from tl_core.errors import DataWarning
from tl_core.images.decoding import decode_image
from tl_core.images.files import is_left_out_folder

LETTERS = st.characters(codec="latin-1", categories=["L", "N"], exclude_characters="\u00aa\u00ba\u00b5\u00df\u00ff")
OTHERS = st.sampled_from(" -_.'\"!#&()+=")
LABELS = st.text(LETTERS | OTHERS | st.sampled_from(",;|\t"), min_size=2, max_size=9).map(str.strip)
NAMES = st.text(LETTERS | OTHERS, min_size=1, max_size=9).map(str.strip).filter(lambda name: name.strip(". "))
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252")


def is_label(label: str) -> bool:
    """A label that is one: none that stands for a missing one, nor two joined by a bar."""
    return len(label) > 1 and label not in MISSING_LABELS and "|" not in label and label.casefold() != "nan"


def distinct(names: list[str]) -> list[str]:
    """One of those that differ in case and spaces alone."""
    return list({"".join(name.casefold().split()): name for name in names}.values())


@st.composite
def labelled_names(draw: st.DrawFn, names: st.SearchStrategy[str], labels: st.SearchStrategy[str]) -> dict[str, str]:
    """Labels by names of images; every label is there, and at least two."""
    classes = distinct(draw(st.lists(labels.filter(is_label), min_size=2, max_size=4)))
    while len(classes) < 2:
        classes.append(f"{classes[0]}2")
    files = distinct(draw(st.lists(names, min_size=len(classes), max_size=8)))
    files += [f"more{number}" for number in range(len(classes) - len(files))]
    return {f"{name}.png": classes[position % len(classes)] for position, name in enumerate(files)}


def listed(spec: Path, elsewhere: str) -> set[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        listing = list_images(str(spec), Path(elsewhere))
    assert not any(entry.fault for entry in listing.entries)
    return {(entry.name, entry.class_name) for entry in listing.entries}


@given(
    rows=labelled_names(NAMES.filter(lambda name: not name.startswith(".")), LABELS),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(ENCODINGS),
    heading=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_tables_of_any_dialect_are_read_back(
    rows: dict[str, str], delimiter: str, quoting: Any, line_end: str, encoding: str, *, heading: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), dict.fromkeys(rows, b""))
        path = Path(folder, "t.csv")
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
            writer.writerows([*([["image", "label"]] if heading else []), *rows.items()])
        assert listed(path, folder) == set(rows.items())
        with open_source(str(path)) as source:
            assert {Path(file.name).name for file in source.files()} == set(rows)


FOLDERS = NAMES.filter(lambda name: is_label(name) and not is_left_out_folder(name) and part_of(name) is None)


def members(rows: dict[str, str]) -> dict[str, bytes]:
    return {f"{label}/{name}": name.encode() for name, label in rows.items()}


@given(
    rows=labelled_names(NAMES.filter(lambda name: not name.startswith(".")), FOLDERS),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    prefix=st.sampled_from(["", "set/", "./", "a/b/"]),
)
@settings(deadline=None, max_examples=100)
def test_zips_of_any_method_are_read_back(rows: dict[str, str], method: int, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.zip")
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in members(rows).items():
                archive.writestr(prefix + name, content)
        assert_read_back(path, rows, folder)


@given(
    rows=labelled_names(NAMES.filter(lambda name: not name.startswith(".")), FOLDERS),
    mode=st.sampled_from(["w", "w:gz", "w:bz2", "w:xz"]),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    prefix=st.sampled_from(["", "set/", "./", "a/b/"]),
)
@settings(deadline=None, max_examples=100)
def test_tars_of_any_format_are_read_back(rows: dict[str, str], mode: Any, form: int, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.tar")
        with tarfile.open(path, mode, format=form) as archive:
            for name, content in members(rows).items():
                info = tarfile.TarInfo(prefix + name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        assert_read_back(path, rows, folder)


def assert_read_back(path: Path, rows: dict[str, str], folder: str) -> None:
    listing = list_images(str(path), Path(folder))
    with listing.open() as read:
        found = {(read(entry.name).decode(), entry.class_name) for entry in listing.entries}
    assert found == {(name, label.strip()) for name, label in rows.items()}


LOSSLESS: dict[str, list[dict[str, Any]]] = {
    "PNG": [{}, {"optimize": True}],
    "BMP": [{}],
    "WEBP": [{"lossless": True}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}],
    "GIF": [{}],
}


@given(
    kind=st.sampled_from([(name, options) for name, all_options in LOSSLESS.items() for options in all_options]),
    seed=st.integers(0, 1000),
    mode=st.sampled_from(["L", "RGB"]),
)
@settings(deadline=None, max_examples=60)
def test_what_pillow_writes_without_loss_is_read_back(kind: tuple[str, dict[str, Any]], seed: int, mode: str) -> None:
    colours = np.random.default_rng(seed).integers(0, 256, (16, 3), dtype=np.uint8)
    image = Image.fromarray(colours[np.arange(256).reshape(16, 16) % 16]).convert(mode)
    file = io.BytesIO()
    image.save(file, kind[0], **kind[1])
    np.testing.assert_array_equal(decode_image(file.getvalue(), 16), np.asarray(image.convert("RGB")))


def test_a_table_and_its_folders_are_the_same_data(tmp_path: Path) -> None:
    put(tmp_path, {f"{name}/{number}.png": encode(number + 9 * len(name)) for name in ("a", "bb") for number in (1, 2)})
    (tmp_path / "t.csv").write_text(
        "image,label\n" + "".join(f"{n}/{i}.png,{n}\n" for n in ("a", "bb") for i in (1, 2))
    )
    found = [load_dataset(str(spec), 16).fingerprint for spec in (tmp_path, tmp_path / "t.csv")]
    assert found[0] == found[1]

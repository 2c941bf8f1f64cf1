"""Paths that tables write, on whichever machine they were made: the file that is meant, none, or several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tl_core.made_formats import put
from tl_core.images.paths import ImagePaths

FILES = ["cat/1.png", "dog/1.png", "dog/2.jpg", "deep/er/3.png", "dog/ spaced.png", "5e3c7a10-raw.png"]


@pytest.fixture
def paths(tmp_path: Path) -> ImagePaths:
    return ImagePaths(put(tmp_path, dict.fromkeys(FILES, b"")))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cat/1.png", ["cat/1.png"]),
        (" ./cat//1.png ", ["cat/1.png"]),
        ("cat\\1.png", ["cat/1.png"]),
        ("C:\\Users\\me\\cat\\1.png", ["cat/1.png"]),
        ("\\\\nas\\share\\cat\\1.png", ["cat/1.png"]),
        ("/home/me/data/dog/1.png", ["dog/1.png"]),
        ("file:///home/me/dog/1.png", ["dog/1.png"]),
        ("https://host/dog/1.png", ["dog/1.png"]),
        ("gs://bucket/x/2.jpg", ["dog/2.jpg"]),
        ("../elsewhere/cat/1.png", ["cat/1.png"]),
        ("photos/cat/1.png", ["cat/1.png"]),
        ("er/3.png", ["deep/er/3.png"]),
        ("er/3", ["deep/er/3.png"]),
        ("3", ["deep/er/3.png"]),
        ("1.png", ["cat/1.png", "dog/1.png"]),
        ("/home/1.png", ["cat/1.png", "dog/1.png"]),
        ("/data/upload/7/0a1b2c3d-3.png", ["deep/er/3.png"]),
        ("/data/upload/7/5e3c7a10-raw.png", ["5e3c7a10-raw.png"]),
        ("/data/local-files/?d=x%20y/cat/1.png", ["cat/1.png"]),
        ("dog/ spaced.png", ["dog/ spaced.png"]),
        ("bird/1.png", []),
        ("9.png", []),
        ("", []),
        ("..", []),
        ("/", []),
        ("x" * 5000, []),
        ("a\0b.png", []),
    ],
)
def test_the_file_that_is_meant_is_found(text: str, found: list[str], paths: ImagePaths) -> None:
    assert paths.find(text) == found


def test_nothing_outside_of_the_folder_is_found(tmp_path: Path) -> None:
    put(tmp_path, {"outside.png": b"", "data/cat/1.png": b""})
    paths = ImagePaths(tmp_path / "data")
    assert paths.find("../outside.png") == paths.find(str(tmp_path / "outside.png")) == []


def test_names_that_are_the_same_bytes_in_another_encoding_are_found(tmp_path: Path) -> None:
    put(tmp_path, {os.fsdecode("ch\u00e2t.png".encode("cp1252")): b""})
    assert ImagePaths(tmp_path).find("ch\u00e2t.png", "cp1252") == [os.fsdecode(b"ch\xe2t.png")]

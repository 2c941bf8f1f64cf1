"""What a user may write for the images: every way names the same files, and nothing is lost on the way."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from serving.sources import open_source
from tests.serving.conftest import below
from tl_core.errors import InputError


def listed(spec: str | Path, path_column: str = "") -> list[tuple[str, bytes]]:
    """Names and bytes of the files that a spec names."""
    with open_source(str(spec), path_column) as source:
        found = [(file.name, file.read()) for file in source.files()]
        assert [file.name for file in source.files()] == [name for name, _ in found]  # a second time, the same
        assert source.count == len(found)
    return found


def contents(folder: Path) -> list[bytes]:
    return [Path(name).read_bytes() for name in below(folder)]


def as_folder(pictures: Path, folder: Path) -> str:
    return str(pictures)


def as_glob(pictures: Path, folder: Path) -> str:
    return f"{pictures}/**/*.png"


def as_csv(pictures: Path, folder: Path) -> str:
    pd.DataFrame({"id": range(12), "path": below(pictures)}).to_csv(folder / "t.csv", index=False)
    return str(folder / "t.csv")


def as_parquet(pictures: Path, folder: Path) -> str:
    pd.DataFrame({"path": below(pictures), "id": range(12)}).to_parquet(folder / "t.parquet")
    return str(folder / "t.parquet")


def as_zip(pictures: Path, folder: Path) -> str:
    with zipfile.ZipFile(folder / "t.zip", "w") as archive:
        for name in below(pictures):
            archive.write(name, Path(name).relative_to(pictures))
    return str(folder / "t.zip")


def as_tar(pictures: Path, folder: Path) -> str:
    with tarfile.open(folder / "t.tar", "w") as archive:
        for name in below(pictures):
            archive.add(name, Path(name).relative_to(pictures))
    return str(folder / "t.tar")


@pytest.mark.parametrize("form", [as_folder, as_glob, as_csv, as_parquet, as_zip, as_tar])
def test_every_form_names_the_same_files_in_the_same_order(
    form: Callable[[Path, Path], str], pictures: Path, tmp_path: Path
) -> None:
    assert [content for _, content in listed(form(pictures, tmp_path))] == contents(pictures)


@pytest.mark.parametrize("form", [as_folder, as_glob, as_csv, as_parquet])
def test_files_are_called_by_their_path(form: Callable[[Path, Path], str], pictures: Path, tmp_path: Path) -> None:
    assert [name for name, _ in listed(form(pictures, tmp_path))] == below(pictures)


@pytest.mark.parametrize("form", [as_zip, as_tar])
def test_members_are_called_by_archive_and_path(
    form: Callable[[Path, Path], str], pictures: Path, tmp_path: Path
) -> None:
    spec = form(pictures, tmp_path)
    expected = [f"{spec}/{Path(name).relative_to(pictures)}" for name in below(pictures)]
    assert [name for name, _ in listed(spec)] == expected


def test_images_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    names = ["a.PNG", "b/c/d.jpg", "b/e.webp", "f.bmp"]
    for name in [*names, "notes.txt", "b/._e.webp", "b/.hidden.png", ".hidden/g.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in listed(tmp_path)] == [str(tmp_path / name) for name in names]


def test_one_image_is_a_source_of_one(pictures: Path) -> None:
    file = pictures / "red" / "000.png"
    assert listed(file) == [(str(file), file.read_bytes())]


def test_paths_in_a_table_count_from_the_table(pictures: Path) -> None:
    (pictures / "t.csv").write_text("image,path\nred/001.png,\nblue/000.png,\n")
    names = [name for name, _ in listed(pictures / "t.csv", "image")]
    assert names == [str(pictures / "red/001.png"), str(pictures / "blue/000.png")]


def test_a_file_that_a_table_names_twice_is_listed_twice(pictures: Path) -> None:
    (pictures / "t.csv").write_text("path\nred/001.png\nred/001.png\n")
    assert len(listed(pictures / "t.csv")) == 2


def test_links_in_a_ring_come_to_an_end(pictures: Path) -> None:
    (pictures / "red" / "up").symlink_to(pictures, target_is_directory=True)
    (pictures / "ring.png").symlink_to(pictures / "ring.png")
    with open_source(str(pictures)) as source:
        names = [file.name for file in source.files()]
        ring = next(file for file in source.files() if file.name.endswith("ring.png"))
        with pytest.raises(OSError, match="symbolic links"):
            ring.read()
    assert len(names) == 13


def test_linked_files_and_folders_are_listed_once(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(pictures / "red")
    (tmp_path / "links" / "b").symlink_to(pictures / "red")
    (tmp_path / "links" / "c.png").symlink_to(pictures / "blue" / "000.png")
    assert [Path(name).name for name, _ in listed(tmp_path / "links")] == [
        *[f"{index:03d}.png" for index in range(4)],
        "c.png",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_folder_that_may_not_be_listed_is_one_unreadable_file(pictures: Path) -> None:
    (pictures / "red").chmod(0)
    try:
        with open_source(str(pictures)) as source:
            files = list(source.files())
            assert len(files) == 9
            with pytest.raises(PermissionError):
                files[-1].read()
    finally:
        (pictures / "red").chmod(0o755)


def test_a_pipe_is_not_waited_for(pictures: Path) -> None:
    os.mkfifo(pictures / "pipe.png")
    with open_source(str(pictures)) as source:
        pipe = next(file for file in source.files() if file.name.endswith("pipe.png"))
        with pytest.raises(OSError, match="not a regular file"):
            pipe.read()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("missing", "no images at missing; expected a folder, a glob, a table of paths, an archive or one image"),
        ("x" * 300, "no images at xxx"),
        ("empty", "no images found in empty; expected png, jpg, webp, bmp, tif, gif or avif files"),
        ("empty/*.png", "no images found in empty/*.png"),
        (
            "notes.txt",
            "expected a table (.csv, .tsv, .jsonl, .parquet), .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, or one image",
        ),
        ("other.csv", "other.csv has no column of image files; expected one of image, image_id, "),
        ("nothing.csv", "nothing.csv has no column of image files; expected one of image, image_id, "),
        ("heading.csv", "no images found in heading.csv"),
        ("damaged.csv", "damaged.csv is not a readable csv file"),
        ("damaged.parquet", "damaged.parquet is not a readable parquet file"),
        ("damaged.zip", "damaged.zip is not a readable zip archive"),
        ("damaged.tar", "damaged.tar is not a readable tar archive"),
        ("escaping.zip", "points outside the archive"),
    ],
)
def test_what_names_no_images_is_refused_in_a_sentence(
    spec: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").touch()
    Path("other.csv").write_text("picture,id\na.png,1\n")
    Path("nothing.csv").touch()
    Path("heading.csv").write_text("path\n")
    Path("damaged.csv").write_text("path\n" + "x" * 200_000 + "\n")
    for kind in ("parquet", "zip", "tar"):
        Path(f"damaged.{kind}").write_text("no such thing" * 100)
    with zipfile.ZipFile("escaping.zip", "w") as archive:
        archive.writestr("../a.png", b"")
    with pytest.raises(InputError) as raised:
        listed(spec)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)

"""Archives are hostile input: they stay inside themselves, and no larger than images are."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.tl_core.made_formats import tarred, zipped
from tl_core.errors import InputError
from tl_core.images.containers import tars
from tl_core.images.containers.archives import list_members, open_archive

FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "notes.txt": b"text"}


def read_all(path: Path) -> dict[str, bytes]:
    with open_archive(path) as read:
        return {name: read(name) for name in list_members(path).names}


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_may_not_become_larger_than_images_would(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tarred(tmp_path / "a.tgz", {f"cat/{number}.png": bytes(100_000) for number in range(20)}, mode)
    monkeypatch.setattr(tars, "MOST_EXPANDED", 1_000_000)
    monkeypatch.setattr(tars, "MOST_EXPANSION", 2)
    for action in (list_members, read_all):
        with pytest.raises(InputError, match="expected at most 1,000,000 bytes after decompression, got more"):
            action(path)


def test_a_compressed_tar_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    path = tarred(tmp_path / "a.tgz", FILES, "w:gz")
    with open_archive(path) as read:
        assert list((tmp_path / "scratch").iterdir()) == []
        assert read("cat/1.png") == b"one"
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_cut_compressed_tar_is_refused(mode: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tgz", {"cat/1.png": bytes(range(256)) * 400}, mode)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="is not a readable tar archive"):
        list_members(path)


def test_members_that_are_left_out_are_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {**FILES, "@eaDir/3.png": b"", ".git/4.png": b"", "__pycache__/x.pyc": b""})
    members = list_members(path)
    assert (members.names, members.others) == (["cat/1.png", "cat/2.png"], ["notes.txt"])
    assert members.hidden == ["@eaDir", ".git"]


def test_links_in_a_zip_are_followed_inside_it_only(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    links = {"cat/3.png": b"1.png", "dog/4.png": b"../cat/2.png", "cat/5.png": b"/etc/passwd", "cat/6.png": b"../../x"}
    links |= {"cat/7.png": b"x" * 5000, "cat/8.png": b"\xff"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**FILES, **links}.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK if name in links else stat.S_IFREG) << 16
            archive.writestr(info, content)
    assert read_all(path) == {"cat/1.png": b"one", "cat/2.png": b"two", "cat/3.png": b"one", "dog/4.png": b"two"}
    assert sorted(list_members(path).broken_links) == [f"cat/{number}.png" for number in (5, 6, 7, 8)]


def test_links_in_a_row_come_to_an_end(tmp_path: Path) -> None:
    links = [(f"cat/l{number}.png", f"l{number + 1}.png", tarfile.SYMTYPE) for number in range(30)]
    path = tarred(tmp_path / "a.tar", FILES, "w", [*links, ("cat/l30.png", "1.png", tarfile.SYMTYPE)])
    assert len(read_all(path)) == 2 + 16

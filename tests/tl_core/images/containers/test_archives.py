"""Archives are hostile input: they stay inside themselves, and no larger than images are."""

from __future__ import annotations

import io
import stat
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
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


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(("said", "got"), [(1000, "more"), (30_000_001, "30,000,000")])
def test_a_zip_member_is_decompressed_no_further_than_the_archive_says(
    method: int, said: int, got: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/bomb.png", bytes(30_000_000))
        archive.writestr("cat/1.png", b"one" * 100)
        archive.getinfo("cat/bomb.png").file_size = said
    with open_archive(tmp_path / "a.zip") as read:
        tracemalloc.start()
        with pytest.raises(OSError, match=f"expected {said:,} bytes, as the archive says, got {got}"):
            read("cat/bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 2 * said + 20_000_000  # and LZMA's dictionary
        tracemalloc.stop()
        assert read("cat/1.png") == b"one" * 100


@pytest.mark.parametrize("method", METHODS)
def test_a_flipped_byte_of_a_zip_member_is_noticed(method: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/1.png", content)
        archive.getinfo("cat/1.png").CRC ^= 1
    with open_archive(tmp_path / "a.zip") as read, pytest.raises(OSError, match=r"checksum|CRC"):
        read("cat/1.png")


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "one,two", "GNU.sparse.size": "100"},
        {"GNU.sparse.map": "0,10", "GNU.sparse.size": "many"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"},
    ],
)
def test_a_sparse_tar_whose_map_is_no_map_is_refused(headers: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a readable tar archive"):
        list_members(sparse(tmp_path / "a.tar", headers))


def test_a_sparse_member_whose_map_leads_behind_the_end_is_one_unreadable_file(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.tar", {"GNU.sparse.map": "0,200000", "GNU.sparse.size": "200000"})
    with open_archive(path) as read, pytest.raises(OSError, match="unexpected end of data"):
        read("cat/1.png")


def sparse(path: Path, headers: dict[str, str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("cat/1.png")
        info.pax_headers, info.size = headers, 600
        archive.addfile(info, io.BytesIO(b"word\n" * 120))
    return path


def test_threads_read_their_own_members_of_a_tar(tmp_path: Path) -> None:
    files = {f"cat/{number}.png": bytes([number]) * 200_000 for number in range(64)}
    with open_archive(tarred(tmp_path / "a.tar", files)) as read, ThreadPoolExecutor(8) as threads:
        names = list(files) * 4
        assert all(content == files[name] for name, content in zip(names, threads.map(read, names), strict=True))


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

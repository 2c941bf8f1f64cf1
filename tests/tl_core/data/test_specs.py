"""What a spec names: the same classes from a folder, a zip or a tar, and a sentence for everything unsafe or broken."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_core.data.layouts import archives
from tl_core.data.layouts.listing import ImageListing
from tl_core.data.specs import list_images
from tl_core.errors import InputError
from tl_core.images.containers.archives import Members, list_members
from tl_core.images.files import MAX_MEMBER_BYTES

Files = Mapping[str, bytes]
Pack = Callable[[Path, Files], Path]

# Listing looks at names only: the contents need not be pictures.
PICTURES: Files = {"blue/0.jpg": b"blue 0", "red/0.png": b"red 0", "red/1.PNG": b"red 1"}


def to_folder(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def to_zip(path: Path, files: Files) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # the same bytes at any time
    return path


def to_tar(path: Path, files: Files) -> Path:
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


every_kind = pytest.mark.parametrize("pack", [to_folder, to_zip, to_tar])
every_archive = pytest.mark.parametrize("pack", [to_zip, to_tar])


def listed(path: Path | str) -> ImageListing:
    with tempfile.TemporaryDirectory() as elsewhere:
        return list_images(str(path), Path(elsewhere))


def contents(listing: ImageListing) -> list[tuple[str, bytes]]:
    """(class, content) of every entry, in order."""
    with listing.open() as read:
        return [(entry.class_name, read(entry.name)) for entry in listing.entries]


def refused(path: Path | str) -> str:
    """The one sentence with which a spec is refused."""
    with pytest.raises(InputError) as raised:
        listed(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def at(prefix: str, files: Files) -> Files:
    return {prefix + name: content for name, content in files.items()}


@every_kind
@pytest.mark.parametrize("prefix", ["", "./", "data/", "data/images/2024/"])
def test_folder_zip_and_tar_at_any_depth_hold_the_same_classes(pack: Pack, prefix: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "set", at(prefix, PICTURES))
    assert contents(listed(path)) == [("blue", b"blue 0"), ("red", b"red 0"), ("red", b"red 1")]


@every_kind
def test_the_order_of_the_files_in_an_archive_does_not_matter(pack: Pack, tmp_path: Path) -> None:
    path = pack(tmp_path / "set", {name: PICTURES[name] for name in reversed(list(PICTURES))})
    assert [entry.name for entry in listed(path).entries] == list(PICTURES)


@every_kind
@pytest.mark.parametrize(
    "clutter",
    ["__MACOSX/red/._0.png", "red/._0.png", "red/.0.png", "readme.txt", "red/labels.csv", ".thumbnails/small/0.png"],
)
def test_clutter_is_no_image(pack: Pack, clutter: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "set", {**PICTURES, clutter: b"clutter"})
    assert [entry.name for entry in listed(path).entries] == list(PICTURES)


def test_what_macos_adds_to_a_zip_is_no_class(tmp_path: Path) -> None:
    path = to_zip(tmp_path / "set", {**PICTURES, "__MACOSX/other/0.png": b""})
    assert {entry.class_name for entry in listed(path).entries} == {"blue", "red"}


@every_archive
def test_a_member_that_was_added_twice_counts_once(pack: Pack, tmp_path: Path) -> None:
    path = pack(tmp_path / "set", PICTURES)
    if path.suffix == ".tar":
        with tarfile.open(path, "a") as tar:
            tar.addfile(tarfile.TarInfo("red/0.png"))
    else:
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("red/0.png", b"")
    assert contents(listed(path)) == [("blue", b"blue 0"), ("red", b""), ("red", b"red 1")]


@every_archive
@pytest.mark.parametrize("name", ["../red/a.png", "red/../../a.png", "/red/a.png", "..\\red\\a.png", "../notes.txt"])
def test_a_member_that_points_outside_is_refused_and_nothing_is_written(pack: Pack, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = pack(folder / "set", {**PICTURES, name: b"bad"})
    before = below(tmp_path)
    assert f"{name!r}, which points outside" in refused(path)
    assert below(tmp_path) == before


@pytest.mark.parametrize(
    "spec", ["nowhere", "nowhere.zip", "digit:source", "x" * 5000, "~no-such-user/data"], ids=lambda s: s[:20]
)
def test_a_missing_path_is_refused_with_what_is_expected(spec: str) -> None:
    assert "expected a folder, an archive (.zip, .tar, .tar.gz, .tar.bz2 or .tar.xz), a table" in refused(spec)


@every_kind
@pytest.mark.parametrize("files", [{}, {"red/readme.txt": b"no picture"}], ids=["empty", "text_only"])
def test_a_spec_without_images_is_refused(pack: Pack, files: Files, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert "no images found" in refused(pack(tmp_path / "set", files))


@every_kind
def test_images_outside_of_class_folders_are_refused(pack: Pack, tmp_path: Path) -> None:
    assert "outside of class folders" in refused(pack(tmp_path / "set", {**PICTURES, "stray.png": b""}))


@pytest.mark.parametrize("name", ["data.txt", "data.7z", "data", "data.gz", "photo.png"])
def test_a_file_of_another_kind_is_refused_with_what_is_expected(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"x"))
    assert "expected a folder, an archive" in refused(tmp_path / name)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".TXZ"])
@pytest.mark.parametrize(
    "content", [b"", b"this is no archive" * 100, gzip.compress(b"x" * 9000)], ids=["empty", "text", "gzip"]
)
def test_a_file_that_is_no_archive_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"set{suffix}"
    path.write_bytes(content)
    assert "is not a readable" in refused(path)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_truncated_zip_is_refused(cut: float, tmp_path: Path) -> None:
    path = to_zip(tmp_path / "set", PICTURES)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    assert "is not a readable zip archive" in refused(path)


def test_a_tar_that_ends_inside_a_member_is_refused(tmp_path: Path) -> None:
    path = to_tar(tmp_path / "set", at("", {"red/0.png": b"0" * 5000}))
    path.write_bytes(path.read_bytes()[:2000])
    assert "is not a readable tar archive" in refused(path)


def test_a_compressed_tar_under_the_name_of_a_plain_one_is_read(tmp_path: Path) -> None:
    path = to_tar(tmp_path / "set", PICTURES)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert contents(listed(path)) == [("blue", b"blue 0"), ("red", b"red 0"), ("red", b"red 1")]


DIRECTORY, LOCAL = b"PK\1\2", b"PK\3\4"  # how a zip's two records of a member begin
UTF8_NAME = b"\0\x08"

Patch = tuple[bytes, int, bytes]


def patched_zip(path: Path, *patches: Patch) -> Path:
    """A zip with other bytes at some offsets of the first member's records."""
    path = to_zip(path, PICTURES)
    content = bytearray(path.read_bytes())
    for record, offset, value in patches:
        start = content.index(record) + offset
        content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def test_a_zip_member_that_claims_a_huge_size_is_refused_unread(tmp_path: Path) -> None:
    path = patched_zip(tmp_path / "set", (DIRECTORY, 24, struct.pack("<I", MAX_MEMBER_BYTES + 1)))
    assert "expected at most 268,435,456 bytes for one image, got 268,435,457 of blue/0.jpg" in refused(path)


def test_a_tar_member_of_a_huge_size_is_refused_unread(tmp_path: Path) -> None:
    info = tarfile.TarInfo("red/0.png")
    info.size = MAX_MEMBER_BYTES + 1
    path = tmp_path / "set.tar"
    with path.open("wb") as file:
        file.write(info.tobuf())
        file.truncate(info.size + 4096)  # a hole: takes no space on the disk
    assert "expected at most 268,435,456 bytes for one image, got 268,435,457 of red/0.png" in refused(path)


@pytest.mark.parametrize(
    "patches",
    [
        [(DIRECTORY, 6, b"\xff")],
        [(DIRECTORY, 8, UTF8_NAME), (DIRECTORY, 46, b"\xff")],
        [(DIRECTORY, 30, b"\4")],
    ],
    ids=["unknown_version", "name_is_not_utf8", "extra_field_is_cut"],
)
def test_a_zip_with_a_damaged_directory_is_refused(patches: list[Patch], tmp_path: Path) -> None:
    assert "is not a readable zip archive" in refused(patched_zip(tmp_path / "set", *patches))


def test_a_zip_member_without_a_name_is_no_image(tmp_path: Path) -> None:
    path = patched_zip(tmp_path / "set", (DIRECTORY, 46, b"\0"))
    assert [entry.name for entry in listed(path).entries] == ["red/0.png", "red/1.PNG"]


@pytest.mark.parametrize(
    "patches",
    [
        [(DIRECTORY, 8, b"\1")],
        [(DIRECTORY, 10, b"\x63")],
        [(DIRECTORY, 16, b"\0\0\0\0")],
        [(DIRECTORY, 20, b"\1\0\0\0")],
        [(DIRECTORY, 42, b"\5")],
        [(LOCAL, 6, UTF8_NAME), (LOCAL, 30, b"\xff")],
        [(LOCAL, 28, b"\0\2")],
    ],
    ids=["encrypted", "unknown_method", "wrong_checksum", "cut_short", "wrong_offset", "name_is_not_utf8", "outside"],
)
def test_a_damaged_zip_member_is_one_unreadable_file(patches: list[Patch], tmp_path: Path) -> None:
    listing = listed(patched_zip(tmp_path / "set", *patches))
    with listing.open() as read:
        with pytest.raises(OSError):  # noqa: PT011
            read("blue/0.jpg")
        assert read("red/0.png") == b"red 0"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_tar_members_that_are_no_files_are_ignored(kind: bytes, tmp_path: Path) -> None:
    path = to_tar(tmp_path / "set", PICTURES)
    info = tarfile.TarInfo("red/2.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "a") as archive:
        archive.addfile(info)
    assert [entry.name for entry in listed(path).entries] == list(PICTURES)


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    path = to_folder(tmp_path / "set", PICTURES)
    elsewhere = to_folder(tmp_path / "elsewhere", PICTURES)
    (path / "linked").symlink_to(elsewhere / "red", target_is_directory=True)
    assert "linked" in {entry.class_name for entry in listed(path).entries}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = to_folder(tmp_path / "set", PICTURES)
    (path / "red").chmod(0)
    with pytest.raises(InputError, match="red cannot be read"):
        listed(path)


@pytest.mark.timeout(20)
def test_a_link_to_a_parent_folder_does_not_hang(tmp_path: Path) -> None:
    path = to_folder(tmp_path / "set", PICTURES)
    (path / "red" / "again").symlink_to(path, target_is_directory=True)
    assert len(listed(path).entries) == 3


@pytest.mark.parametrize("target", ["nowhere.png", "loop.png"])
def test_a_link_that_leads_nowhere_is_listed_and_cannot_be_read(target: str, tmp_path: Path) -> None:
    path = to_folder(tmp_path / "set", PICTURES)
    (path / "red" / "loop.png").symlink_to(target)
    listing = listed(path)
    assert "red/loop.png" in [entry.name for entry in listing.entries]
    with listing.open() as read, pytest.raises(OSError):  # noqa: PT011
        read("red/loop.png")


def test_names_need_not_be_ascii(tmp_path: Path) -> None:
    files = {"größe/ä ö.png": b"1", "赤/図.png": b"2"}
    for pack in (to_folder, to_zip, to_tar):
        assert contents(listed(pack(tmp_path / "set", files))) == [("größe", b"1"), ("赤", b"2")]


def test_the_signature_stays_while_nothing_changes(tmp_path: Path) -> None:
    path = to_folder(tmp_path / "set", PICTURES)
    assert listed(path).signature == listed(path).signature


@pytest.mark.parametrize("change", ["red/0.png", "red/2.png"])
def test_the_signature_changes_with_a_changed_or_added_file(change: str, tmp_path: Path) -> None:
    path = to_folder(tmp_path / "set", PICTURES)
    before = listed(path).signature
    to_folder(path, {change: b"something longer"})
    assert listed(path).signature != before


with tempfile.TemporaryDirectory() as _scratch:
    WHOLE_ARCHIVES = [pack(Path(_scratch) / "set", PICTURES).read_bytes() for pack in (to_zip, to_tar)]


@given(
    which=st.sampled_from([0, 1]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    length=st.none() | st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=300)
def test_a_damaged_archive_is_read_refused_or_has_unreadable_members(
    which: int, changes: list[tuple[int, int]], length: int | None
) -> None:
    content = bytearray(WHOLE_ARCHIVES[which])
    for position, value in changes:
        content[position % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ("set.zip", "set.tar")[which])
        path.write_bytes(content[:length])
        try:
            listing = listed(path)
        except InputError:
            return
        with listing.open() as read:
            for entry in listing.entries:
                try:
                    assert isinstance(read(entry.name), bytes)
                except OSError:
                    continue


def test_an_archive_is_walked_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = to_tar(tmp_path / "set", PICTURES)
    walked: list[Path] = []

    def walk(archive: Path) -> Members:
        walked.append(archive)
        return list_members(archive)

    monkeypatch.setattr(archives, "list_members", walk)
    listings = [list_images(str(path), tmp_path / "data") for _ in range(3)]
    assert walked == [path]
    assert listings[0] == listings[1] == listings[2]
    to_tar(tmp_path / "set", {**PICTURES, "green/0.png": b"new"})
    assert len(list_images(str(path), tmp_path / "data").entries) == len(PICTURES) + 1
    assert walked == [path, path]


def test_a_damaged_memory_of_an_archive_is_replaced(tmp_path: Path) -> None:
    path = to_zip(tmp_path / "set", PICTURES)
    fresh = list_images(str(path), tmp_path / "data")
    (memory,) = (tmp_path / "data").glob("members-*.json")
    memory.write_text("[")
    assert list_images(str(path), tmp_path / "data") == fresh


def test_folders_and_tables_with_commas_between_are_one_data_set(tmp_path: Path) -> None:
    photos = to_folder(tmp_path / "photos", PICTURES)
    holiday = to_folder(tmp_path / "holiday", {"a.png": b"a", "day/b.png": b"b", "c.png": b"c"})
    (holiday / "corrections.csv").write_text("image,label\na.png,red\nday/b.png,green\n")
    listing = list_images(f"{photos}, {holiday / 'corrections.csv'}", tmp_path / "cache")
    assert {entry.name: entry.class_name for entry in listing.entries} == {
        "photos/blue/0.jpg": "blue",
        "photos/red/0.png": "red",
        "photos/red/1.PNG": "red",
        "holiday/a.png": "red",
        "holiday/day/b.png": "green",
    }
    with listing.open() as read:
        assert [read(name) for name in ("photos/blue/0.jpg", "holiday/day/b.png")] == [b"blue 0", b"b"]
    (holiday / "corrections.csv").write_text("image,label\na.png,red\nday/b.png,blue\n")
    assert list_images(f"{photos},{holiday / 'corrections.csv'}", tmp_path / "cache").signature != listing.signature


def test_the_same_image_from_two_places_counts_once_and_must_have_one_class(tmp_path: Path) -> None:
    photos = to_folder(tmp_path / "photos", PICTURES)
    table = photos / "corrections.csv"
    table.write_text("image,label\nred/0.png,red\n")
    assert len(list_images(f"{photos},{table}", tmp_path / "cache").entries) == 3
    table.write_text("image,label\nred/0.png,blue\n")
    with pytest.raises(InputError, match=r"corrections.csv says that red/0.png is 'blue', .*photos that it is 'red'"):
        list_images(f"{photos},{table}", tmp_path / "cache")


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    photos, packed = to_folder(tmp_path / "photos", PICTURES), to_zip(tmp_path / "packed", PICTURES)
    for spec, sentence in ((f"{photos},{packed}", "got the archive"), (f"{photos},missing", "no data at 'missing'")):
        with pytest.raises(InputError, match=sentence):
            list_images(spec, tmp_path / "cache")


def test_a_path_with_a_comma_in_it_is_one_path(tmp_path: Path) -> None:
    assert len(list_images(str(to_folder(tmp_path / "red,blue", PICTURES)), tmp_path / "cache").entries) == 3

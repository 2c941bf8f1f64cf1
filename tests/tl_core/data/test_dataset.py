"""Loading and caching: the labels are the colours, nothing is decoded twice, nothing half-written is ever read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import COLOURS, write_colour_images
from tl_core.data import cache as image_cache
from tl_core.data.dataset import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, ImageDataset, load_dataset
from tl_core.errors import DataWarning, InputError
from tl_core.images.decoding import DecodedImage, decode_image

ROOT = Path(__file__).resolve().parents[3]


def load(spec: Path | str, size: int = 16) -> ImageDataset:
    return load_dataset(str(spec), size)


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            file.write(path, Path("some", "folder", path.relative_to(folder)))
    return archive


def tarred(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w") as file:
        file.add(folder, "another")
    return archive


def pixel_files(tmp_path: Path) -> list[Path]:
    """Everything in the image cache but its locks and listings."""
    return [path for path in (tmp_path / "cache" / "images").iterdir() if path.suffix not in (".lock", ".json")]


def test_the_label_is_the_colour_of_the_mean_pixel(colours: Path) -> None:
    dataset = load(colours)
    assert dataset.class_names == ("blue", "green", "red")
    means = dataset.images.mean(axis=(1, 2))
    known = np.array([COLOURS[name] for name in dataset.class_names])
    nearest = np.abs(means[:, None] - known).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, dataset.labels)


def test_a_dataset_says_what_is_in_it(colours: Path) -> None:
    dataset = load(colours)
    assert dataset.images.shape == (60, 16, 16, 3)
    assert dataset.image_size == 16
    assert dataset.class_counts() == {"blue": 20, "green": 20, "red": 20}
    assert dataset.file_names[0] == "blue/000.png"
    assert len(set(dataset.content_hashes)) == 60


def test_the_pictures_cannot_be_changed_by_accident(colours: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        load(colours).images[0] = 0


def test_every_row_is_the_picture_of_its_file(colours: Path) -> None:
    dataset = load(colours)
    for row in (0, 25, 59):
        np.testing.assert_array_equal(dataset.images[row], decode_image(colours / dataset.file_names[row], 16))


def test_the_second_load_decodes_nothing_and_is_equal(colours: Path) -> None:
    first, second = load(colours), load(colours)
    assert (first.decoded, second.decoded) == (60, 0)
    assert (first.fingerprint, first.file_names) == (second.fingerprint, second.file_names)
    np.testing.assert_array_equal(first.images, second.images)


def test_another_size_or_rule_is_decoded_anew(colours: Path) -> None:
    load(colours)
    assert load(colours, size=24).images.shape == (60, 24, 24, 3)
    assert load_dataset(str(colours), 16, "stretch").decoded == 60
    assert load(colours).images.shape == (60, 16, 16, 3)


def test_folder_zip_and_tar_of_the_same_files_are_the_same_data(colours: Path, tmp_path: Path) -> None:
    folder, *archives = (
        load(spec) for spec in (colours, zipped(colours, tmp_path / "a.zip"), tarred(colours, tmp_path / "b.tar"))
    )
    for archive in archives:
        assert archive.fingerprint == folder.fingerprint
        assert archive.content_hashes == folder.content_hashes
        np.testing.assert_array_equal(archive.images, folder.images)
        np.testing.assert_array_equal(archive.labels, folder.labels)


def test_the_same_data_is_stored_once(colours: Path, tmp_path: Path) -> None:
    load(colours)
    load(zipped(colours, tmp_path / "a.zip"))
    assert len(pixel_files(tmp_path)) == 1


def test_a_new_name_of_the_root_keeps_the_fingerprint(colours: Path, tmp_path: Path) -> None:
    before = load(colours).fingerprint
    assert load(colours.rename(tmp_path / "renamed")).fingerprint == before


def test_the_content_of_one_file_changes_the_fingerprint_and_the_picture(colours: Path) -> None:
    before = load(colours)
    old = before.images[0].copy()
    Image.new("RGB", (24, 24), "black").save(colours / "blue" / "000.png")
    after = load(colours)
    assert after.fingerprint != before.fingerprint
    assert (after.images[0] == 0).all()
    np.testing.assert_array_equal(before.images[0], old)  # what is loaded stays as it was


@pytest.mark.parametrize("target", ["red/new.png", "green/000.png"])
def test_another_name_or_class_changes_the_fingerprint(target: str, colours: Path) -> None:
    before = load(colours).fingerprint
    (colours / "red" / "000.png").replace(colours / target)
    assert load(colours).fingerprint != before


def test_a_new_time_decodes_again_and_keeps_the_fingerprint(colours: Path) -> None:
    before = load(colours)
    os.utime(colours / "red" / "000.png", ns=(1, 1))
    after = load(colours)
    assert after.decoded == 60
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.images, before.images)


def test_a_lost_pixel_file_is_made_again(colours: Path, tmp_path: Path) -> None:
    load(colours)
    (lost,) = pixel_files(tmp_path)
    lost.unlink()
    assert load(colours).decoded == 60


def flip(content: bytes) -> bytes:
    return bytes(255 - byte for byte in content[:100]) + content[100:]


@pytest.mark.parametrize(
    "damage", [flip, lambda content: content[:-500], lambda _: b"", lambda content: content + b"x"]
)
def test_a_damaged_pixel_file_is_made_again(damage: Callable[[bytes], bytes], colours: Path, tmp_path: Path) -> None:
    whole = np.array(load(colours).images)
    (pixels,) = pixel_files(tmp_path)
    pixels.write_bytes(damage(pixels.read_bytes()))
    with pytest.warns(DataWarning, match="is damaged; the images are decoded again"):
        again = load(colours)
    assert again.decoded == len(whole)
    np.testing.assert_array_equal(again.images, whole)


def test_a_copied_pixel_file_is_used(colours: Path, tmp_path: Path) -> None:
    load(colours)
    (pixels,) = pixel_files(tmp_path)
    shutil.copy(pixels, tmp_path / "copy")
    (tmp_path / "copy").replace(pixels)
    assert [load(colours).decoded, load(colours).decoded] == [0, 0]


@pytest.mark.parametrize(
    ("old", "new"), [("red", "dog"), ("red/", "tea/"), ('"red", ', ""), ("{", "["), ("crc", "crd")]
)
def test_a_damaged_index_is_made_again(old: str, new: str, colours: Path, tmp_path: Path) -> None:
    before = load(colours)
    (index,) = (path for path in (tmp_path / "cache" / "images").iterdir() if path.suffix == ".json")
    index.write_text(index.read_text().replace(old, new, 1))
    with pytest.warns(DataWarning, match="is damaged, or of another release; the images are decoded again"):
        again = load(colours)
    assert (again.class_names, again.file_names) == (before.class_names, before.file_names)
    assert again.decoded == len(before.labels)


@pytest.fixture
def two_broken(colours: Path) -> Path:
    """The colours with a note and half a PNG among the red ones."""
    (colours / "red" / "note.jpg").write_text("no picture")
    (colours / "red" / "zhalf.png").write_bytes((colours / "red" / "000.png").read_bytes()[:200])
    return colours


def test_unreadable_files_are_refused_with_name_reason_and_the_way_out(two_broken: Path) -> None:
    with pytest.raises(InputError) as raised:
        load(two_broken)
    message = str(raised.value)
    assert f"2 of 62 images in {two_broken} cannot be read, the first is red/note.jpg" in message
    assert "not a png, jpg, webp, bmp, tif, gif or avif image" in message
    assert "--unreadable skip" in message


def test_skipped_files_are_left_out_and_listed(two_broken: Path) -> None:
    dataset = load_dataset(str(two_broken), 16, unreadable="skip")
    assert len(dataset.images) == len(dataset.labels) == 60
    assert [file.name for file in dataset.unreadable] == ["red/note.jpg", "red/zhalf.png"]
    assert all(file.reason for file in dataset.unreadable)


def test_a_warm_cache_remembers_what_was_unreadable(two_broken: Path) -> None:
    load_dataset(str(two_broken), 16, unreadable="skip")
    again = load_dataset(str(two_broken), 16, unreadable="skip")
    assert again.decoded == 0
    assert len(again.unreadable) == 2
    with pytest.raises(InputError, match="2 of 62"):
        load(two_broken)


def test_a_damaged_member_of_a_zip_is_one_unreadable_file(colours: Path, tmp_path: Path) -> None:
    archive = zipped(colours, tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT")] ^= 255
    archive.write_bytes(content)
    dataset = load_dataset(str(archive), 16, unreadable="skip")
    assert [file.name for file in dataset.unreadable] == ["some/folder/red/019.png"]
    assert len(dataset.images) == 59


def test_a_link_that_leads_nowhere_is_one_unreadable_file(colours: Path) -> None:
    (colours / "red" / "link.png").symlink_to("nowhere")
    (unreadable,) = load_dataset(str(colours), 16, unreadable="skip").unreadable
    assert (unreadable.name, unreadable.reason) == ("red/link.png", "No such file or directory")


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_colour_images(tmp_path / "set", n_per_class=2)
    for name in ("green", "blue"):
        shutil.rmtree(tmp_path / "set" / name)
    with pytest.raises(InputError, match=r"expected at least 2 classes .*, got red"):
        load(tmp_path / "set")


def test_a_spec_with_unreadable_files_only_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "note.png").write_text("no picture")
    with pytest.raises(
        InputError, match=r"2 images cannot be read, the first is a/note.png .*at least 2 classes .*, got none"
    ):
        load_dataset(str(tmp_path / "set"), 16, unreadable="skip")


@pytest.mark.parametrize("size", [-1, 0, MIN_IMAGE_SIZE - 1, MAX_IMAGE_SIZE + 1])
def test_an_image_size_out_of_range_is_refused_with_the_range(size: int, colours: Path) -> None:
    with pytest.raises(InputError, match=f"expected image_size from 8 to 1024, got {size}"):
        load(colours, size)


LOAD_WHEN_TOLD = """
import hashlib, sys, time
from pathlib import Path
from tl_core.data.dataset import load_dataset
spec, ready, go = sys.argv[1:]
Path(ready).touch()
while not Path(go).exists():
    time.sleep(0.001)
dataset = load_dataset(spec, 16)
print(dataset.decoded, dataset.fingerprint, hashlib.sha256(dataset.images.tobytes()).hexdigest())
"""


@pytest.mark.timeout(60)
def test_two_processes_may_fill_the_same_cache(colours: Path, tmp_path: Path) -> None:
    ready, go = [tmp_path / "ready0", tmp_path / "ready1"], tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", LOAD_WHEN_TOLD, colours, file, go],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for file in ready
    ]
    while not all(file.exists() for file in ready):
        time.sleep(0.01)
    go.touch()
    answers = sorted(process.communicate()[0].split() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert [answer[0] for answer in answers] == ["0", "60"]  # one decodes, the other waits for it
    assert answers[0][1:] == answers[1][1:]
    assert answers[0][1] == load(colours).fingerprint


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_load_leaves_nothing_behind_and_the_next_one_works(
    interruption: type[BaseException], colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1000))

    def interrupted(source: bytes, image_size: int, resize_rule: str) -> DecodedImage:
        if next(calls) == 30:
            raise interruption
        return DecodedImage(np.zeros((image_size, image_size, 3), dtype=np.uint8))

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "decode_with_notices", interrupted)
        with pytest.raises(interruption):
            load(colours)
    assert [path.suffix for path in (tmp_path / "cache" / "images").iterdir()] == [".lock"]
    dataset = load(colours)
    assert dataset.decoded == 60
    assert dataset.images.any()


def test_names_need_not_be_utf8(colours: Path) -> None:
    (colours / "red" / "000.png").replace(colours / "red" / os.fsdecode(b"\xff.png"))
    assert load(colours).decoded == 60
    again = load(colours)
    assert again.decoded == 0
    assert os.fsencode(again.file_names[-1]) == b"red/\xff.png"


def test_a_class_folder_that_is_no_utf8_has_a_name_that_tables_can_hold(colours: Path) -> None:
    os.rename(colours / "red", os.fsencode(colours) + b"/caf\xe9")  # noqa: PTH104 - no text, hence no path
    dataset = load(colours)
    assert dataset.class_names == ("blue", "caf\\udce9", "green")
    assert dataset.class_counts()["caf\\udce9"] == load(colours).class_counts()["blue"]
    assert next(name for name in dataset.file_names if not name.isascii()).startswith("caf\udce9/")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageDataset]:
    """Both parts of the embedded digits."""
    cache = tmp_path_factory.mktemp("digits")
    return {name: load_dataset(f"digits:{name}", 32, cache_dir=cache) for name in ("source", "target")}


def pictures(dataset: ImageDataset, class_name: str) -> dict[str, NDArray[np.int64]]:
    """The pictures of a class by file name."""
    rows = np.flatnonzero(dataset.labels == dataset.class_names.index(class_name))
    return {Path(dataset.file_names[row]).name: dataset.images[row].astype(np.int64) for row in rows}


def test_the_digits_source_has_20_classes_and_the_target_5(digits: dict[str, ImageDataset]) -> None:
    turned = {f"digit{digit}-turned{90 * turn}" for digit in range(5) for turn in range(4)}
    assert set(digits["source"].class_names) == turned
    assert digits["target"].class_names == ("digit5", "digit6", "digit7", "digit8", "digit9")


def test_every_scan_is_in_the_digits_once_and_with_every_turn(digits: dict[str, ImageDataset]) -> None:
    n_source, n_target = len(digits["source"].images), len(digits["target"].images)
    assert n_source // 4 + n_target == 1797
    assert n_source % 4 == 0


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_digit_is_the_upright_one_turned(turn: int, digits: dict[str, ImageDataset]) -> None:
    for digit in range(5):
        upright = pictures(digits["source"], f"digit{digit}-turned0")
        turned = pictures(digits["source"], f"digit{digit}-turned{90 * turn}")
        assert upright.keys() == turned.keys()
        # Enlarging rounds rows and columns in turn: a grey value may be off by one.
        assert max(np.abs(np.rot90(upright[name], turn) - turned[name]).max() for name in upright) <= 1


def test_no_digit_is_in_source_and_target(digits: dict[str, ImageDataset]) -> None:
    source, target = digits["source"], digits["target"]
    assert not set(source.content_hashes) & set(target.content_hashes)
    names = [{Path(name).name for name in dataset.file_names} for dataset in (source, target)]
    assert not names[0] & names[1]


@pytest.mark.parametrize("spec", ["digits:other", "digits:", "digits:source/digit0-turned0"])
def test_another_set_of_digits_is_refused_with_those_that_exist(spec: str) -> None:
    with pytest.raises(InputError, match="expected digits:source or digits:target"):
        load(spec)


@pytest.mark.parametrize(
    ("name", "n_images", "is_said"),
    [
        ("dandelon", 1, True),
        ("dandelions", 2, True),
        ("dandelon", 5, False),
        ("daisy", 1, False),
        ("dandelion2", 1, False),
    ],
)
def test_a_class_of_hardly_an_image_that_is_called_nearly_as_another_is_said(
    tmp_path: Path, name: str, n_images: int, is_said: bool
) -> None:
    for position, (of, count) in enumerate([("dandelion", 10), ("tulip", 10), (name, n_images)]):
        (tmp_path / of).mkdir()
        for number in range(count):
            pixels = np.random.default_rng(100 * position + number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / of / f"{number}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        dataset = load_dataset(str(tmp_path), 8)
    said = [notice for notice in dataset.notices if "is called nearly as" in notice]
    assert bool(said) == is_said
    if is_said:
        assert said[0].startswith(f"the class '{name}' ({name}/0.png")
        assert "as 'dandelion', which has 10 images; if it is the same, rename it" in said[0]

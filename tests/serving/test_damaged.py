"""Everything that can be wrong with a file, five hundred times: no crash, and each file accounted for once."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.batch import Options, predict_batches
from serving.model import OnnxClassifier
from serving.sources import open_source
from tests.conftest import COLOURS
from tests.serving.conftest import read_csv
from tests.tl_core.images.test_decoding import TURNED_RIGHT, exif, png_header, quarters
from tl_core.data.dataset import load_dataset
from tl_core.images.decoding import decode_image

ROOT = Path(__file__).resolve().parents[2]
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "gif": "GIF", "avif": "AVIF"}
READABLE, UNREADABLE, EITHER = "readable", "unreadable", "either"

Case = tuple[bytes, str, bytes]  # the end of a name, what must become of it, content


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noisy_red(width: int = 40, height: int = 30) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 15, (height, width, 3))
    return Image.fromarray(np.clip(np.array(COLOURS["red"]) + noise, 0, 255).astype(np.uint8))


def cut_and_flipped() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for suffix, kind in FORMATS.items():
        whole = encoded(noisy_red(), kind)
        for share in np.linspace(0.01, 0.99, 45):
            yield f"cut.{suffix}".encode(), EITHER, whole[: int(share * len(whole))]
        for _ in range(45):
            damaged = bytearray(whole)
            for position in rng.integers(0, len(whole), 8):
                damaged[position] ^= int(rng.integers(1, 256))
            yield f"flipped.{suffix}".encode(), EITHER, bytes(damaged)
        yield f"empty.{suffix}".encode(), UNREADABLE, b""
        yield f"noise.{suffix}".encode(), UNREADABLE, rng.bytes(2000)


def of_another_kind() -> Iterator[Case]:
    for kind in FORMATS.values():
        for suffix in (*FORMATS, "JPEG", "PNG"):
            yield f"named.{suffix}".encode(), READABLE, encoded(noisy_red(), kind)
    for content in (b"%PDF-1.7", b"<html>", b"PK\3\4", b"GIF89a", b"MZ", b"\0" * 64, b"\xff" * 64):
        yield b"foreign.jpg", UNREADABLE, content * 10
    for kind in ("TGA", "PPM", "ICO"):  # real images of kinds that are not read
        yield b"foreign.png", UNREADABLE, encoded(noisy_red(), kind)
    for side in (30_000, 65_535, 2**31 - 1):
        yield b"bomb.png", UNREADABLE, png_header(side, side)
        yield b"bomb.bmp", UNREADABLE, bmp_header(side)
    yield b"bomb.jpg", UNREADABLE, jpg_header(65_500)
    yield b"none.png", UNREADABLE, png_header(0, 10)


def bmp_header(side: int) -> bytes:
    """The start of a bitmap that claims to be so large."""
    whole = encoded(noisy_red(), "BMP")
    return whole[:18] + struct.pack("<ii", side, side) + whole[26:]


def jpg_header(side: int) -> bytes:
    """A photo whose start-of-frame segment claims to be so large."""
    whole = encoded(noisy_red(), "JPEG")
    frame = whole.index(b"\xff\xc0") + 5
    return whole[:frame] + struct.pack(">HH", side, side) + whole[frame + 4 :]


def of_every_mode() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 60), (60, 1), (16, 16), (300, 200)):
        image = noisy_red(width, height)
        for mode in ("RGB", "RGBA", "P"):
            yield f"{mode}.png".encode(), READABLE, encoded(image.convert(mode), "PNG")
        for mode in ("1", "L", "LA"):
            yield f"{mode}.png".encode(), EITHER, encoded(image.convert(mode), "PNG")  # grey has no brightest channel
        deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        yield b"deep.png", EITHER, encoded(deep, "PNG")
        yield b"cmyk.jpg", READABLE, encoded(image.convert("CMYK"), "JPEG")
        frames = [noisy_red(width, height) for _ in range(3)]
        for suffix in ("png", "webp"):
            animated = encoded(image, FORMATS[suffix], save_all=True, append_images=frames)
            yield f"animated.{suffix}".encode(), READABLE, animated
        for orientation in range(10):
            tags = Image.Exif()
            tags[0x0112] = orientation
            yield b"turned.jpg", READABLE, encoded(image, "JPEG", exif=tags)
    for tag in (TURNED_RIGHT, (0x0112, 2, 9, b"\xff\xff\xff\xff"), (0x0112, 9, 2**31, b"\0\0\0\0")):
        yield b"exif.jpg", READABLE, encoded(noisy_red(), "JPEG", exif=exif(tag))


def with_strange_names() -> Iterator[Case]:
    content = encoded(noisy_red(), "PNG")
    for name in (b"\xff\xfe", b"\xc3\x28", b"new\nline", b'quote"', b"comma,", b"\xe5\x9b\xb3", b"x" * 240, b" ", b"="):
        yield name + b".png", READABLE, content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All of them in one folder, each named by its number and what must become of it."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    cases = [*cut_and_flipped(), *of_another_kind(), *of_every_mode(), *with_strange_names()]
    for index, (name, fate, content) in enumerate(cases):
        (folder / os.fsdecode(f"{index:03d}{fate[0]}".encode() + name)).write_bytes(content)
    (folder / "900u-ring.png").symlink_to(folder / "900u-ring.png")
    (folder / "901u-dangling.png").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "902u-pipe.png")
    (folder / "903-folder.png").mkdir()
    (folder / "903-folder.png" / "904r-inside.png").write_bytes(encoded(noisy_red(), "PNG"))
    (folder / "905u-locked.png").write_bytes(encoded(noisy_red(), "PNG"))
    (folder / "905u-locked.png").chmod(0)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # MLflow's
@pytest.mark.timeout(240)
@pytest.mark.parametrize("program", ["serving", "pipelines.predict"])
def test_each_of_five_hundred_damaged_files_is_accounted_for(
    program: str, model_file: Path, folder: Path, tmp_path: Path, store: str
) -> None:

    output, album = tmp_path / "out.csv", tmp_path / "album"
    given = {"--model": model_file, "--images": folder, "--output": output}
    named = [str(part) for pair in given.items() for part in pair]
    arguments = [str(value) for value in given.values()] if program == "serving" else named
    command = [sys.executable, "-m", program, *arguments, "--pictures", str(album)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(album.glob("*.png"))) == 100
    expected = Counter(
        str(path).encode("utf-8", "backslashreplace").decode()
        for path in folder.rglob("*.*")
        if not path.is_dir() and "loop" not in path.parts
    )
    rows = read_csv(output)
    assert len(rows) >= 500
    assert Counter(row["file"] for row in rows) == expected
    for row in rows:
        name = Path(row["file"]).name
        assert bool(row["label"]) is not bool(row["error"]), name
        if name[3] == READABLE[0]:
            assert row["label"] == "red", name
        if name[3] == UNREADABLE[0] and not (name.startswith("905") and os.geteuid() == 0):
            assert row["error"], name
    reasons = {Path(row["file"]).name[:3]: row["error"] for row in rows if row["error"]}
    assert "symbolic links" in reasons["900"]
    assert reasons["901"] == "No such file or directory"
    assert reasons["902"] == "not a regular file"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_training_and_serving_turn_pictures_alike(model: OnnxClassifier, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for orientation in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = orientation
        content = encoded(quarters(), "PNG", exif=tags)
        (tmp_path / "data" / "ab"[orientation % 2] / f"{orientation}.png").write_bytes(content)
    trained = load_dataset(str(tmp_path / "data"), 16)
    with open_source(str(tmp_path / "data")) as source:
        files = list(source.files())
    served = np.stack([decode_image(file.read(), model.image_size, model.resize_rule) for file in files])
    assert [str(tmp_path / "data" / name) for name in trained.file_names] == [file.name for file in files]
    np.testing.assert_array_equal(served, trained.images)
    assert len({image.tobytes() for image in served}) == 8  # every orientation is a picture of its own
    (answers,) = predict_batches(model, [files], Options(top_k=3))
    expected = model.predict(np.asarray(trained.images))
    assert [[p for _, p in answer.top] for answer in answers] == np.sort(expected, 1)[:, ::-1].tolist()

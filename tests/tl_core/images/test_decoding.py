"""One image file to one square array: every mode and format that people have, and every way a file can be broken."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tl_core.images import decoding
from tl_core.images.decoding import (
    ResizeRule,
    UnreadableImageError,
    decode_image,
    decode_with_notices,
    is_image_name,
)

RED, GREEN, BLUE, WHITE = (200, 40, 40), (40, 200, 40), (40, 40, 200), (255, 255, 255)

# Pillow warns about damaged EXIF and APNG blocks and reads the pixels all the same.
PILLOW_MAY_WARN = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL.PngImagePlugin"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file that holds the picture."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bands(*colours: tuple[int, int, int], width: int = 10, height: int = 10) -> Image.Image:
    """Vertical bands from left to right, each of `width` x `height` pixels."""
    picture = Image.new("RGB", (width * len(colours), height))
    for index, colour in enumerate(colours):
        picture.paste(colour, (index * width, 0, (index + 1) * width, height))
    return picture


def quarters() -> Image.Image:
    """Four colours, one in each quarter: no turn and no mirror leaves it as it is."""
    picture = Image.new("RGB", (16, 16), WHITE)
    for colour, corner in ((RED, (0, 0)), (GREEN, (8, 0)), (BLUE, (0, 8))):
        picture.paste(colour, (*corner, corner[0] + 8, corner[1] + 8))
    return picture


def pixel(image: bytes | Path, size: int = 8, rule: ResizeRule = "crop") -> tuple[int, ...]:
    """The colour of a picture that has one colour only."""
    array = decode_image(image, size, rule)
    assert (array == array[0, 0]).all()
    return tuple(array[0, 0].tolist())


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def exif(*tags: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of (tag, type, count, four bytes of value)."""
    body = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


TURNED_RIGHT = (0x0112, 3, 1, b"\6\0\0\0")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("size", [8, 33])
def test_every_format_becomes_a_square_of_rgb_bytes(kind: str, size: int) -> None:
    array = decode_image(encoded(Image.new("RGB", (40, 30), RED), kind), size)
    assert array.shape == (size, size, 3)
    assert array.dtype == np.uint8
    assert np.abs(array.astype(int) - RED).max() <= 8  # JPEG and WebP lose a little


def test_a_file_and_its_bytes_give_the_same_picture(tmp_path: Path) -> None:
    content = encoded(quarters(), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.jpg", 8), decode_image(content, 8))


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (9, 9), BLUE), "PNG"))
    assert pixel(tmp_path / "a.jpg") == BLUE


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(noise)), 16), noise)


@pytest.mark.parametrize("rule", ["crop", "stretch"])
def test_halves_stay_left_and_right(rule: ResizeRule) -> None:
    array = decode_image(encoded(bands(RED, BLUE, width=20, height=20)), 10, rule)
    assert (array[:, :4] == RED).all()
    assert (array[:, 6:] == BLUE).all()


@pytest.mark.parametrize("turn", [0, 1])
def test_crop_keeps_the_centre_only(turn: int) -> None:
    picture = Image.fromarray(np.rot90(np.asarray(bands(RED, GREEN, BLUE)), turn))
    assert pixel(encoded(picture), 10, "crop") == GREEN


def test_stretch_keeps_all_of_the_picture() -> None:
    array = decode_image(encoded(bands(RED, GREEN, BLUE)), 12, "stretch")
    assert [tuple(array[6, column].tolist()) for column in (1, 6, 10)] == [RED, GREEN, BLUE]


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    array = decode_image(encoded(Image.fromarray(stripes)), 8)
    assert np.abs(array.astype(int) - 127).max() <= 12


@pytest.mark.parametrize(
    ("orientation", "as_stored"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_photo_is_turned_as_its_exif_says(orientation: int, as_stored: Image.Transpose | None) -> None:
    stored = quarters() if as_stored is None else quarters().transpose(as_stored)
    tag = (0x0112, 3, 1, struct.pack("<HH", orientation, 0))
    array = decode_image(encoded(stored, "PNG", exif=exif(tag)), 16)
    np.testing.assert_array_equal(array, np.asarray(quarters()))


def test_a_large_jpeg_is_turned_and_cropped_like_a_small_one() -> None:
    stored = bands(RED, GREEN, BLUE, width=400, height=400).transpose(Image.Transpose.ROTATE_90)
    array = decode_image(encoded(stored, "JPEG", exif=exif(TURNED_RIGHT)), 12, "stretch")
    found = [array[6, column].astype(int) for column in (1, 6, 10)]
    assert np.abs(np.array(found) - [RED, GREEN, BLUE]).max() <= 4


# XResolution is a number; some cameras write text or bytes there.
@pytest.mark.parametrize("kind", [1, 2, 7])
def test_a_strange_exif_tag_does_not_spoil_the_picture(kind: int) -> None:
    tags = exif(TURNED_RIGHT, (0x011A, kind, 2, b"ab\0\0"))
    array = decode_image(encoded(quarters().transpose(Image.Transpose.ROTATE_90), "PNG", exif=tags), 16)
    np.testing.assert_array_equal(array, np.asarray(quarters()))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_a_truncated_exif_block_does_not_spoil_the_picture() -> None:
    assert pixel(encoded(Image.new("RGB", (8, 8), GREEN), "PNG", exif=exif(TURNED_RIGHT)[:20])) == GREEN


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), WHITE),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (*RED, 0), WHITE),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("1", 0, (0, 0, 0)),
        ("1", 1, WHITE),
        ("I;16", 0, (0, 0, 0)),
        ("I;16", 128 * 257, (128, 128, 128)),
        ("I;16", 65_535, WHITE),
    ],
)
def test_every_mode_becomes_the_colour_that_is_seen(mode: str, colour: Any, expected: tuple[int, ...]) -> None:
    assert pixel(encoded(Image.new(mode, (12, 8), colour))) == expected


@pytest.mark.parametrize(("transparent", "expected"), [(0, WHITE), (1, RED), (None, RED)])
def test_a_palette_may_have_a_transparent_colour(transparent: int | None, expected: tuple[int, ...]) -> None:
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([*RED, *BLUE])
    options: dict[str, Any] = {} if transparent is None else {"transparency": transparent}
    assert pixel(encoded(picture, **options)) == expected


@pytest.mark.parametrize(("mode", "colour"), [("L", 77), ("RGB", RED)])
def test_a_colour_may_be_declared_transparent(mode: str, colour: Any) -> None:
    assert pixel(encoded(Image.new(mode, (8, 8), colour), transparency=colour)) == WHITE


def test_a_printer_s_jpeg_has_the_colours_of_the_screen() -> None:
    array = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), 8)
    assert np.abs(array.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_of_an_animation_the_first_picture_counts(kind: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE))
    content = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    assert pixel(content) == RED


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
WHOLE_PNG = encoded(NOISE)
OTHER_WHOLES = [encoded(NOISE, kind) for kind in ("TIFF", "GIF", "AVIF")]
WHOLE_JPEG = encoded(NOISE, "JPEG", exif=exif(TURNED_RIGHT))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a png, jpg, webp, bmp, tif, gif or avif image"),
        (b"this is a note, not a picture", "not a png, jpg, webp, bmp, tif, gif or avif image"),
        (encoded(Image.new("RGB", (8, 8)), "TGA"), "not a png, jpg, webp, bmp, tif, gif or avif image"),
        (WHOLE_JPEG[: len(WHOLE_JPEG) // 2], "truncated"),
        (WHOLE_PNG[: len(WHOLE_PNG) // 2], "truncated"),
        (WHOLE_PNG[:20], ""),
        (WHOLE_JPEG[:20], ""),
        (png_header(100_000, 100_000), "pixels"),
        (png_header(10_000, 10_000), "expected at most 80,000,000 pixels, got 10,000 x 10,000"),
        (png_header(0, 8), ""),
    ],
    ids=["empty", "text", "tga", "half_jpeg", "half_png", "png_start", "jpeg_start", "bomb", "large", "no_width"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_broken_file_is_unreadable_for_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(content)
    for source in (content, tmp_path / "picture.jpg"):
        with pytest.raises(UnreadableImageError) as raised:
            decode_image(source, 8)
        assert reason in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["folder.png", "missing.png"])
def test_a_file_that_cannot_be_opened_is_unreadable_and_its_name_is_not_repeated(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnreadableImageError) as raised:
        decode_image(tmp_path / name, 8)
    assert name not in str(raised.value)
    assert "directory" in str(raised.value)


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.jpeg", "a.webp", "a.bmp", "A.PNG", "b/c.d/a.Jpg", "a b.png", "é.png"]
)
def test_image_names_are_known_by_their_suffix(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name", ["", "a", "png", ".png", "._a.png", "b/._a.jpg", "a.tga", "a.png.txt", "a.png~", "a.npy"]
)
def test_other_files_and_hidden_ones_are_no_images(name: str) -> None:
    assert not is_image_name(name)


def assert_decoded_or_unreadable(content: bytes) -> None:
    try:
        array: NDArray[np.uint8] = decode_image(content, 8)
    except UnreadableImageError:
        return
    assert array.shape == (8, 8, 3)
    assert array.dtype == np.uint8


SIGNATURES = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe1",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"BM",
    b"II*\0\x08\0\0\0",
    b"MM\0*",
    b"GIF89a",
    b"\0\0\0\x18ftypavif",
]


class TestAnyBytes:
    pytestmark = PILLOW_MAY_WARN

    @given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=200))
    @settings(deadline=None, max_examples=200)
    def test_arbitrary_bytes_are_decoded_or_unreadable(self, signature: bytes, rest: bytes) -> None:
        assert_decoded_or_unreadable(signature + rest)

    @given(
        whole=st.sampled_from([WHOLE_PNG, WHOLE_JPEG, *OTHER_WHOLES]),
        changes=st.lists(st.tuples(st.integers(0, 400) | st.integers(0, 10_000), st.integers(0, 255)), max_size=5),
        length=st.none() | st.integers(0, 10_000),
    )
    @settings(deadline=None, max_examples=300)
    def test_a_damaged_picture_is_decoded_or_unreadable(
        self, whole: bytes, changes: list[tuple[int, int]], length: int | None
    ) -> None:
        content = bytearray(whole)
        for position, value in changes:
            content[position % len(content)] = value
        assert_decoded_or_unreadable(bytes(content[:length]))


def greys(values: NDArray[Any], kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(values), kind)


@pytest.mark.parametrize(
    ("largest", "full"), [(1, 255), (255, 255), (256, 4095), (4095, 4095), (4096, 65_535), (65_535, 65_535)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_are_scaled_by_the_range_that_they_have(largest: int, full: int, kind: str) -> None:
    values = np.linspace(0, largest, 64).reshape(8, 8).astype(np.uint16)
    found = decode_with_notices(greys(values, kind), 8)
    expected = np.floor(values / (full / 255)).astype(np.uint8)
    np.testing.assert_array_equal(found.pixels, expected[:, :, None].repeat(3, axis=2))
    said = f"hold greys to {full} and are scaled by that range"
    assert [notice for notice in found.notices if "greys" in notice] == ([said] if full < 65_535 else [])


@pytest.mark.parametrize(("largest", "full"), [(0.5, 1), (1, 1), (200, 255), (1e6, 1e6)])
def test_decimal_greys_may_be_shares(largest: float, full: float) -> None:
    values = np.linspace(0, largest, 64, dtype=np.float32).reshape(8, 8)
    values[0, :3] = np.nan, -1, np.inf
    pixels = decode_image(greys(values, "TIFF"), 8)
    assert pixels[0, :3].max() == 0
    np.testing.assert_allclose(pixels[1:, :, 0], values[1:] / full * 255, atol=1.01)


def test_an_image_that_is_transparent_everywhere_shows_its_colours() -> None:
    image = quarters().convert("RGBA")
    image.putalpha(0)
    found = decode_with_notices(encoded(image), 16)
    np.testing.assert_array_equal(found.pixels, np.asarray(quarters()))
    assert found.notices == ("are transparent everywhere, their colours are taken",)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "AVIF"])
def test_of_several_frames_the_first_counts_and_that_is_said(kind: str) -> None:
    frames = [NOISE, NOISE.rotate(90)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    alone = encoded(frames[0], kind)
    assert decode_with_notices(content, 48).notices == ("are the first of several frames",)
    assert decode_with_notices(alone, 48).notices == ()
    if kind != "AVIF":  # which loses other details in a sequence
        np.testing.assert_array_equal(decode_image(content, 48), decode_image(alone, 48))


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [47, 48, 50])
def test_a_jpeg_that_lacks_pixels_is_never_taken_for_a_whole_one(
    size: int, subsampling: int, *, progressive: bool
) -> None:
    noise = Image.fromarray(np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8))
    whole = encoded(noise, "JPEG", subsampling=subsampling, progressive=progressive)
    pixels = decode_image(whole, size)
    for missing in [*range(1, 40), *range(40, len(whole) - 20, 97)]:
        try:
            found = decode_with_notices(whole[:-missing], size)
        except UnreadableImageError:
            assert missing > 2
            continue
        np.testing.assert_array_equal(found.pixels, pixels)
        assert found.notices == ("are cut short by their last bytes, their pixels are whole",)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "AVIF"])
def test_the_limit_of_pixels_holds_for_every_format(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(NOISE, kind)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 48 * 48 - 1)
    with pytest.raises(UnreadableImageError, match="expected at most 2,303 pixels, got 48 x 48"):
        decode_image(content, 8)


def test_an_image_of_one_colour_is_marked() -> None:
    assert decode_with_notices(encoded(Image.new("RGB", (9, 9), RED)), 8).notices == ("are of one colour",)

"""Images in the folders, tables and archives that people have, in a few lines each."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

N_IMAGES = 4
CAT_AND_DOG = [f"{name}/{name}{number}.png" for name in ("cat", "dog") for number in range(N_IMAGES)]


def draw(number: int) -> Image.Image:
    """Draw an image unlike those of other numbers."""
    image = Image.new("RGB", (24, 24), (40 + 7 * number % 160, 200 - 11 * number % 150, 90))
    for x in range(4, 20):
        image.putpixel((x, (number * 5 + x) % 24), (255, 255 - number % 200, 10 * number % 250))
    return image


def encode(number: int, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of a file with such an image."""
    file = io.BytesIO()
    draw(number).save(file, kind, **options)
    return file.getvalue()


def contents(names: Sequence[str]) -> dict[str, bytes]:
    """Return a different image for each name, in the format that the name ends in."""
    kinds = {"jpg": "JPEG", "tif": "TIFF", "gif": "GIF", "avif": "AVIF", "webp": "WEBP", "bmp": "BMP"}
    return {
        name: encode(number, kinds.get(name.rpartition(".")[2].lower(), "PNG")) for number, name in enumerate(names)
    }


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a zip with names as they are, backslashes too."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, content)
    return path


def tarred(
    path: Path, files: Mapping[str, bytes], mode: str = "w", links: Sequence[tuple[str, str, bytes]] = ()
) -> Path:
    """Write a tar, compressed as the mode says, with links of (name, target, type) behind the files."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.linkname, info.type = target, kind
            archive.addfile(info)
    return path

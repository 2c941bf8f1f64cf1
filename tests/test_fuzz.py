"""Hostile input: whatever comes, the answer is a result or the one error that says so, and nothing is written.

A few hundred inputs of each kind here; ten thousand of each in the slow tests.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from serving.model import OnnxClassifier
from tests.serving.conftest import METADATA, write_model
from tl_core.data.specs import list_images
from tl_core.errors import InputError
from tl_core.images.containers.archives import list_members, open_archive
from tl_core.images.decoding import UnreadableImageError, decode_image

FEW, MANY, PARTS = 200, 2_500, range(1, 5)

CELLS = st.one_of(
    st.sampled_from(["image", "path", "label", "split", "train", "val", "b", "a|b"]),
    st.sampled_from(["b.png", "a/b.png", "../b.png", "/etc/passwd", "a\\..\\b.png", "é.png", " b "]),
    st.sampled_from(["0", "1", "1.0", "nan", "inf", "", '"', "\0", "=1+1", "+1", "-1", "@x"]),
    st.text(max_size=12),
)
NAMES = st.one_of(
    st.sampled_from(["cat/a.png", "dog/b.jpg", "train/cat/a.png", "./a/b.png", "a.png", ".x/a.png", "cat/"]),
    st.sampled_from(["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"]),
    st.sampled_from(["cat/\0.png", "cat/" + "x" * 300 + ".png"]),
    st.text(max_size=20).map(lambda text: f"{text}.png"),
)
EDITS = st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), max_size=12)
CUTS = st.integers(0, 2**31)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".tbz2": bz2.compress, ".txz": lzma.compress}

Check = Callable[[st.DataObject, Path], None]


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """The content with some bytes changed, and sometimes cut."""
    changed = bytearray(content)
    for position, value in data.draw(EDITS):
        changed[position % len(changed)] = value
    return bytes(changed[: data.draw(CUTS) % len(changed)]) if data.draw(st.booleans()) else bytes(changed)


def check_spec(data: st.DataObject, folder: Path) -> None:
    """A csv of any cells or bytes, and any name at all."""
    (folder / "images").mkdir()
    for name in ("b.png", "a/b.png"):
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        (folder / "images" / name).write_bytes(b"")
    table = folder / "images" / data.draw(st.sampled_from(["table.csv", "table.tsv", "metadata.csv", "table.jsonl"]))
    if data.draw(st.booleans()):
        rows = data.draw(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6))
        heading = data.draw(st.sampled_from(["image,label", "path,split,a,b", "file", "image,a,b"]))
        table.write_bytes(
            "\n".join([heading, *map(data.draw(st.sampled_from(",;\t")).join, rows)]).encode("utf-8", "surrogateescape")
        )
    else:
        table.write_bytes(data.draw(st.binary(max_size=200)))
    name = data.draw(st.sampled_from([table.name, table.name, "a", ""]) | st.text(max_size=30))
    with unchanged(folder / "images"), contextlib.suppress(InputError):
        # Below the folder whatever the name: an absolute one would be read as a spec of its own.
        list_images(f"{folder / 'images'}/{name.replace('..', '')}", folder / "known")


def check_archive(data: st.DataObject, folder: Path) -> None:
    """A zip or tar of any names and sizes, damaged or not."""
    path = folder / data.draw(st.sampled_from(["a.zip", "a.tar", "a.tar.gz", "a.tbz2", "a.txz"]))
    members = data.draw(st.lists(st.tuples(NAMES, st.binary(max_size=50)), max_size=5))
    write = _write_zip if path.suffix == ".zip" else _write_tar
    content = COMPRESS.get(path.suffix, bytes)(write(members, data))
    path.write_bytes(damaged(content, data) if data.draw(st.booleans()) else content)
    with unchanged(folder), contextlib.suppress(InputError):
        names = list_members(path).names
        assert not any(".." in Path(name.replace("\\", "/")).parts or name.startswith("/") for name in names)
        with open_archive(path) as read:
            for name in names:
                with contextlib.suppress(OSError):
                    read(name)


def _write_zip(members: list[tuple[str, bytes]], data: st.DataObject) -> bytes:
    file = io.BytesIO()
    kind = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), content, kind)
    return file.getvalue()


def _write_tar(members: list[tuple[str, bytes]], data: st.DataObject) -> bytes:
    file = io.BytesIO()
    kinds = st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
    links = st.sampled_from(["../../evil", "/etc/passwd", "a.png", "cat/a.png", "./cat//a.png", "."])
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), data.draw(kinds), data.draw(links)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@cache
def pictures() -> tuple[bytes, ...]:
    """Small pictures of every kind that is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    found = []
    modes = {"PNG": "RGB RGBA L P 1", "JPEG": "RGB L CMYK", "WEBP": "RGB RGBA", "BMP": "RGB P"}
    modes |= {"TIFF": "RGB RGBA L P I;16 F CMYK", "GIF": "L P", "AVIF": "RGB RGBA"}
    for kind, mode in [(kind, mode) for kind, of_kind in modes.items() for mode in of_kind.split()]:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        found.append(file.getvalue())
    return tuple(found)


def check_image(data: st.DataObject, folder: Path) -> None:
    """A damaged picture, or any bytes at all."""
    content = damaged(data.draw(st.sampled_from(pictures())), data) if data.draw(st.booleans()) else None
    try:
        image = decode_image(content if content is not None else data.draw(st.binary(max_size=100)), 8)
    except UnreadableImageError:
        return
    assert (image.shape, image.dtype) == ((8, 8, 3), np.uint8)


VALUES = st.one_of(
    st.sampled_from(["[]", "{}", "[1]", '["a","b","c"]', "null", "16", "-1", "1e9", "NaN", "9" * 40, "", "stretch"]),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=4), max_leaves=8).map(
        json.dumps
    ),
    st.text(max_size=20),
)


def check_model(data: st.DataObject, folder: Path) -> None:
    """An .onnx file with any metadata, or with damaged bytes."""
    path = folder / "model.onnx"
    if data.draw(st.booleans()):
        changed = data.draw(st.dictionaries(st.sampled_from([*METADATA, "unlike_below", "other"]), VALUES))
        # What protobuf cannot hold cannot be in a file.
        path.write_bytes(_with_metadata({**METADATA, **{k: _text(v) for k, v in changed.items()}}))
    else:
        path.write_bytes(damaged(_with_metadata(METADATA), data))
    with unchanged(folder), contextlib.suppress(InputError):
        model = OnnxClassifier.load(path, n_threads=1)
        assert (model.image_size, len(model.class_names)) == (16, 3)
        assert all(isinstance(name, str) for name in model.class_names)
        assert model.unlike_below is None or -1 <= model.unlike_below <= 1


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


@cache
def _plain_model() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_model(Path(folder, "model.onnx"), METADATA, second="similarity").read_bytes()


def _with_metadata(metadata: dict[str, str]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(_plain_model())
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing is written below a folder, nor beside it."""
    before = _files(folder)
    yield
    assert _files(folder) == before
    assert not any(path.name.startswith("evil") for path in (*folder.parent.iterdir(), *Path.cwd().iterdir()))


def _files(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_size) for path in folder.rglob("*"))


def fuzz(check: Check, folder: Path, n: int, part: int = 0) -> None:
    """Try a check on n inputs, the same ones each time; other ones in another part."""
    numbers = iter(range(10**9))

    @seed(part)
    @settings(
        max_examples=n,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        own = folder / f"{next(numbers)}" / "target"
        own.mkdir(parents=True)
        check(data, own)
        for path in sorted(own.parent.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        own.parent.rmdir()

    attempt()


CHECKS = {"spec": check_spec, "archive": check_archive, "image": check_image, "model": check_model}
checks = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
hostile = pytest.mark.filterwarnings("ignore")  # zipfile and Pillow warn of strange files


@checks
@hostile
def test_hostile_input_is_answered_or_refused(check: Check, tmp_path: Path) -> None:
    fuzz(check, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", PARTS)
@checks
@hostile
def test_ten_thousand_hostile_inputs_are_answered_or_refused(check: Check, part: int, tmp_path: Path) -> None:
    fuzz(check, tmp_path, MANY, part)

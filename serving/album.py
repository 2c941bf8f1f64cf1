"""The album as a page: images with their predictions, least sure first, to be confirmed, corrected and saved.

One `index.html` beside a folder of thumbnails. It opens from the disk and asks no other host for anything: style and
script are in it, and the images are data. A table of labels that is saved from it is read by `data=`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from serving.answers import Answer
from serving.batch import usable_cores
from tl_core.images.decoding import ResizeRule, UnreadableImageError, decode_image

PAGE, THUMBNAILS = "index.html", "thumbnails"
LABELS = "corrections.csv"
"""Name of the table of labels that the page saves."""
MAX_ON_PAGE = 10_000
"""Images on a page, the least sure ones: nobody looks at more."""

_TEMPLATE = Path(__file__).with_name("album.html")
_DATA = "{{ data }}"
_MARK, _HEAD = b'content="Transfer Lab album"', 500  # what tells an album from another page, and the bytes it is among
_SIDE, _QUALITY = 192, 80  # pixels of a thumbnail, and of its JPEG


@dataclass(frozen=True)
class Album:
    """The images of a page.

    Attributes:
        root: the folder, or the archive, that the files were found in; empty for one that all of them lie in.
        n_images: number of images that could be read.
        answers: those on the page.
        resize_rule: how an image becomes square for the classifier, and so on the page.
        trust: how far the predictions are to be believed, in words.
    """

    root: str
    class_names: Sequence[str]
    n_images: int
    answers: Sequence[Answer]
    resize_rule: ResizeRule = "crop"
    trust: str = ""


class LeastSure:
    """The images that a classifier is least sure of, as many as a page holds, in memory that does not grow."""

    def __init__(self) -> None:
        self._kept: list[Answer] = []

    def add(self, answer: Answer) -> None:
        """Take an image into consideration; one whose name no csv in UTF-8 can hold is left out."""
        if not _is_text(answer.file.name):
            return
        self._kept.append(answer)
        if len(self._kept) > 2 * MAX_ON_PAGE:
            self._kept = self.list()

    def list(self) -> list[Answer]:
        """Return the images, the least sure first."""
        return sorted(self._kept, key=lambda answer: (answer.probability, answer.file.name))[:MAX_ON_PAGE]


def has_other_page(folder: Path) -> bool:
    """Return whether a folder has an `index.html` that is no album, and must not be written over."""
    return (folder / PAGE).exists() and not has_album(folder)


def write_page(album: Album, folder: Path) -> None:
    """Write the page and its thumbnails into a folder.

    Raises:
        OSError: they cannot be written.
    """
    if has_album(folder):
        for old in (folder / THUMBNAILS).glob(5 * "[0-9]" + ".jpg"):
            old.unlink()
    _write_thumbnails(album, folder / THUMBNAILS)
    page = _TEMPLATE.read_text("utf-8").replace(_DATA, _as_json(_describe(album, folder)))
    (folder / PAGE).write_text(page, "utf-8")


def has_album(folder: Path) -> bool:
    """Return whether the page of a folder is an album."""
    if not (folder / PAGE).is_file():
        return False
    with (folder / PAGE).open("rb") as file:
        return _MARK in file.read(_HEAD)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_thumbnails(album: Album, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    places = [folder / _thumbnail(number) for number in range(len(album.answers))]
    with ThreadPoolExecutor(usable_cores()) as threads:
        for _ in threads.map(partial(_write_thumbnail, album.resize_rule), album.answers, places):
            pass  # whose error is raised here


def _thumbnail(number: int) -> str:
    return f"{number:05d}.jpg"


def _write_thumbnail(rule: ResizeRule, answer: Answer, place: Path) -> None:
    try:
        pixels = decode_image(answer.file.read(), _SIDE, rule)
    except (UnreadableImageError, OSError):  # it was readable a moment ago; the page shows its name
        return
    Image.fromarray(pixels).save(place, "JPEG", quality=_QUALITY)


def _describe(album: Album, folder: Path) -> dict[str, Any]:
    """Return what the page shows: classes by their number, and a list of values per image."""
    root, is_archive = _root_of(album), os.path.isfile(album.root)  # noqa: PTH113 - as in `open_source`
    number = {name: position for position, name in enumerate(album.class_names)}
    names = [os.path.relpath(answer.file.name, root).replace(os.sep, "/") for answer in album.answers]
    stamps = [answer.file.stamp() for answer in album.answers]
    images = [
        {
            "name": name,
            "link": "" if is_archive else _link(answer.file.name, folder),
            "top": [[number[class_name], probability] for class_name, probability in answer.prediction.top],
            "named": bool(answer.prediction.label),
            "unlike": answer.prediction.unlike,
            "label": number.get(answer.label, -1),
        }
        for answer, name in zip(album.answers, names, strict=True)
    ]
    known = json.dumps([root, list(album.class_names), names, stamps])
    return {
        "key": hashlib.sha256(known.encode()).hexdigest()[:16],
        "folder": root,
        "trust": album.trust,
        "archive": is_archive,
        "command": f"transfer-lab classify --data my_folder,{shlex.quote(os.path.join(root, LABELS))}",  # noqa: PTH118
        "total": album.n_images,
        "classes": list(album.class_names),
        "images": images,
    }


def _root_of(album: Album) -> str:
    """Return the folder that names count from: a table of labels there is one of these images."""
    if album.root or not album.answers:
        return os.path.abspath(album.root)  # noqa: PTH100 - a link stays one, as in the names of the files
    return os.path.commonpath([os.path.dirname(os.path.abspath(one.file.name)) for one in album.answers])  # noqa: PTH100, PTH120


def _link(file: str, folder: Path) -> str:
    """Return the address of a file, as a page in a folder finds it."""
    return quote(os.fsencode(os.path.relpath(file, folder)))


def _as_json(value: Any) -> str:
    """Return JSON that no element of a page ends in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")

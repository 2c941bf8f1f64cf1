"""Pictures of predictions: a page of all, the first ones beside their probabilities, the most confident mistakes."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from serving.album import PAGE, Album, LeastSure, has_album, has_other_page, write_page
from serving.answers import Answer, read_answers
from serving.sources import ImageSource
from tl_core.errors import InputError
from tl_core.images.decoding import ResizeRule, UnreadableImageError, decode_image

MAX_PICTURES = 100
"""Images of which a picture of their own is drawn, the first ones: more are not looked at one by one."""

SHEET = "mistakes.png"
_SHEET_COLUMNS, _SHEET_ROWS = 6, 4
_BLACK, _WHITE, _GREY, _BLUE = "#000000", "#ffffff", "#bbbbbb", "#0072b2"
_RIGHT, _WRONG = "#009e73", "#d55e00"  # Okabe and Ito: distinct for colour-blind readers
# Pixels: side of an image, margin around everything, height of a line of text, and widths of names, bars and numbers.
_SIDE, _MARGIN, _LINE, _NAMES, _BARS, _NUMBERS = 224, 12, 22, 150, 200, 70
_TEXT_SIZE = 15
_MOST_BARS = 10
_MOST_STEM = 60  # characters of a name of up to four bytes each: no file name may have more than 255 bytes


def make_folder(folder: Path, images: str) -> None:
    """Make the folder that pictures go to.

    Raises:
        InputError: it cannot be made or written to, lies where the images to predict are, or has a page of its own.
    """
    if os.path.isdir(images) and folder.resolve().is_relative_to(Path(images).resolve()):  # noqa: PTH112
        raise InputError(
            f"pictures {folder} lie in {images}, where they would be taken for images; give another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"pictures {folder} cannot be made a folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"pictures {folder} cannot be written to")
    if has_other_page(folder):
        raise InputError(f"pictures {folder} has an {PAGE} that is no album; give another folder")


def draw_album(
    source: ImageSource,
    table: Path,
    class_names: Sequence[str],
    folder: Path,
    rule: ResizeRule = "crop",
    trust: str = "",
) -> str:
    """Draw the first `MAX_PICTURES` predictions, a page of all and a sheet of mistakes; says what was drawn.

    Args:
        table: what `write_predictions` wrote for this source.
        class_names: an image's class is known where the folder that it lies in is called like one of them.
        rule: how an image becomes square for the classifier.
        trust: how far the predictions are to be believed, in words; the page begins with it.

    Raises:
        InputError: the source has changed since, or the pictures cannot be written.
    """
    n_images = 0
    mistakes: list[Answer] = []
    least_sure = LeastSure()
    try:
        for old in folder.glob("[0-9][0-9][0-9]-*.png") if has_album(folder) else ():
            old.unlink()
        for answer in read_answers(source, table, frozenset(class_names)):
            n_images += 1
            least_sure.add(answer)
            if answer.is_mistake:
                mistakes = heapq.nsmallest(_SHEET_COLUMNS * _SHEET_ROWS, [*mistakes, answer], key=_confidence_then_name)
            if n_images <= MAX_PICTURES:
                stem = Path(answer.prediction.file).stem[:_MOST_STEM]
                draw_answer(answer, rule).save(folder / f"{n_images:03d}-{stem}.png")
        write_page(Album(source.root, class_names, n_images, least_sure.list(), rule, trust), folder)
        (folder / SHEET).unlink(missing_ok=True)  # of an earlier call
        if mistakes:
            draw_mistakes(mistakes, rule).save(folder / SHEET)
    except OSError as error:
        raise InputError(f"pictures cannot be written to {folder} ({error.strerror or error})") from error
    drawn = f"{min(n_images, MAX_PICTURES)} pictures in {folder}; to look through and correct: {folder / PAGE}"
    return drawn + (f"; the most confident mistakes are in {folder / SHEET}" if mistakes else "")


def _confidence_then_name(answer: Answer) -> tuple[float, str]:
    return -answer.probability, answer.prediction.file


def draw_answer(answer: Answer, rule: ResizeRule = "crop") -> Image.Image:
    """The image under its predicted class, and beside it the probabilities as bars."""
    top = answer.prediction.top[:_MOST_BARS]
    below = max(_SIDE, _LINE * len(top))
    width = _SIDE + 4 * _MARGIN + _NAMES + _BARS + _NUMBERS
    canvas = Image.new("RGB", (width, 2 * _LINE + below + 2 * _MARGIN), _WHITE)
    _paste(canvas, answer, _MARGIN, _MARGIN, rule)
    draw = ImageDraw.Draw(canvas)
    bars = _SIDE + 3 * _MARGIN + _NAMES
    for rank, (name, probability) in enumerate(top):
        y = _MARGIN + 2 * _LINE + rank * _LINE
        text = _fitted(draw, name, _NAMES)
        draw.text((bars - _MARGIN // 2 - draw.textlength(text, _font()), y), text, _BLACK, _font())
        length = round(_BARS * probability)
        if length:
            draw.rectangle((bars, y + 2, bars + length - 1, y + _LINE - 4), _GREY if rank else _BLUE)
        draw.text((bars + length + _MARGIN // 2, y), f"{100 * probability:.1f} %", _BLACK, _font())
    return canvas


def draw_mistakes(answers: Sequence[Answer], rule: ResizeRule = "crop") -> Image.Image:
    """A sheet of wrongly classified images, as they are ordered."""
    columns = min(_SHEET_COLUMNS, len(answers))
    rows = -(-len(answers) // columns)
    width, height = _SIDE + _MARGIN, _SIDE + 2 * _LINE + _MARGIN
    canvas = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), _WHITE)
    for position, answer in enumerate(answers):
        row, column = divmod(position, columns)
        _paste(canvas, answer, column * width + _MARGIN, row * height + _MARGIN, rule)
    return canvas


def _paste(canvas: Image.Image, answer: Answer, x: int, y: int, rule: ResizeRule) -> None:
    """Two lines of text and below them the image."""
    draw = ImageDraw.Draw(canvas)
    best, probability = answer.prediction.top[0]
    is_given = bool(answer.prediction.label)
    colour = _BLACK if not (answer.label and is_given) else _WRONG if answer.is_mistake else _RIGHT
    title = best if is_given else f"no label ({best})"
    number = f" {100 * probability:.1f} %"
    draw.text((x, y), _fitted(draw, title, _SIDE - draw.textlength(number, _font())) + number, colour, _font())
    if answer.is_mistake:
        draw.text((x, y + _LINE), _fitted(draw, f"is {answer.label}", _SIDE), colour, _font())
    try:
        canvas.paste(Image.fromarray(decode_image(answer.file.read(), _SIDE, rule)), (x, y + 2 * _LINE))
    except (UnreadableImageError, OSError) as error:  # it was readable a moment ago
        draw.text((x, y + 2 * _LINE), _fitted(draw, str(error), _SIDE), colour, _font())


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: float) -> str:
    """One line of text, cut where it would be wider than so many pixels."""
    line = " ".join(text.split())
    if draw.textlength(line, _font()) <= width:
        return line
    while line and draw.textlength(line + "...", _font()) > width:
        line = line[:-1]
    return line + "..."


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", _TEXT_SIZE)  # more alphabets than Pillow's own, where installed
    except OSError:
        return ImageFont.load_default(_TEXT_SIZE)

"""Text in columns that a terminal of 80 columns shows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80
_LEAST = 36  # narrower, a cell of many words is a tower


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line per row, every column as wide as its widest cell; what is too wide for a terminal goes on below.

    A last cell of many words goes on in its own column. Several columns that are too wide together become one line per
    cell, each after its heading from the first row.
    """
    *widths, last = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = WIDTH - sum(widths) - 2 * len(widths)
    if last <= room:
        return ["  ".join(map(str.ljust, row, [*widths, last])).rstrip() for row in rows]
    if len(widths) > 1:
        heading, *others = rows
        return [line for row in others for line in _record(heading, row)]
    width = widths[0] if room >= _LEAST else 2  # a name that is too long stands above
    return [line for name, words in rows for line in _hanging(name, words, width)]


def _hanging(name: str, words: str, width: int) -> list[str]:
    together = words.replace("± ", "±\0")  # a number stays with its sign
    cells = [cell.replace("\0", " ") for cell in textwrap.wrap(together, WIDTH - width - 2)] or [""]
    above = [name] if len(name) > width else []
    labels = ["" if above else name, *[""] * (len(cells) - 1)]
    return [*above, *(f"{label:<{width}}  {cell}".rstrip() for label, cell in zip(labels, cells, strict=True))]


def _record(heading: Sequence[str], row: Sequence[str]) -> list[str]:
    width = max(map(len, heading[1:]))
    cells = zip(heading[1:], row[1:], strict=True)
    return [row[0], *(f"  {name:<{width}}  {cell}".rstrip() for name, cell in cells)]


def wrapped(sentence: str) -> list[str]:
    """Lines of a sentence that a terminal shows whole."""
    return textwrap.wrap(sentence, WIDTH) or [""]

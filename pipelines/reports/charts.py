"""Drawings that become parts of a page: letters that a phone can show, colours of the page, a legend in HTML."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from xml.dom import minidom

from markupsafe import Markup
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipelines.reports.page import Chart, Intervals, Key, Row

_INCHES, _POINTS = 4.1, 11  # on a phone of 375 pixels the letters are then 12 pixels high
_TICKS = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])

# What the figures are drawn in, and what the page calls it: each of its two palettes has its own.
_INK, _RULE = "#010203", "#c0c1c2"
_VARIABLES = {
    **{_INK: "ink", _RULE: "rule", "#000000": "ink", "#0072b2": "blue", "#d55e00": "orange", "#009e73": "green"},
    **{"#cc79a7": "pink", "#56b4e9": "sky", "#e69f00": "amber"},
}
_CONTROL_CHARACTERS = dict.fromkeys(
    {*range(32)} - {ord(space) for space in "\t\n\r"}
)  # a class's name may have some, XML none
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": _POINTS,
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": _POINTS,
    "grid.color": _RULE,
    "image.composite_image": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$x"
}


def chart_style() -> AbstractContextManager[None]:
    """Within this context a figure is to be drawn that becomes a chart."""
    return style.context(_STYLE)


def make_chart(figure: Figure, name: str, text: str, height: float) -> Chart:
    """A figure as part of a page; its legend is words beside it, which wrap where a drawing cannot.

    Args:
        name: different for every chart of a page.
        height: in inches, of a width of 4.1.
    """
    figure.set_size_inches(_INCHES, height)
    if len(figure.axes) == 1:
        figure.axes[0].set_title("")  # the section has one
    keys = _take_legends(figure)
    file = io.StringIO()
    with style.context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Chart(Markup(_embed(file.getvalue(), name)), text, keys)  # noqa: S704 - the words in it are escaped


def make_intervals(caption: str, rows: Sequence[Row]) -> Intervals:
    """Shares with their intervals below each other on one scale, in HTML: their names may be of any length.

    Args:
        rows: value and ends in percent.
    """
    ends = [end for row in rows for end in (row.low, row.value, row.high) if math.isfinite(end)]
    ticks = [float(tick) for tick in _TICKS.tick_values(min(ends), max(ends))]
    return Intervals(caption, rows, ticks)


def _take_legends(figure: Figure) -> list[Key]:
    """Remove the legends of a figure; returns what they said."""
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    keys = [key for legend in legends for key in _keys_of(legend)]
    for legend in legends:
        legend.remove()
    return keys


def _keys_of(legend: Legend) -> list[Key]:
    words = [text.get_text().translate(_CONTROL_CHARACTERS) for text in legend.get_texts()]
    return [Key(text, *_look_of(handle)) for text, handle in zip(words, legend.legend_handles, strict=True) if handle]


def _look_of(handle: Artist) -> tuple[str, str]:
    """Return the page's name for the colour of a line, dots or an area, and how it is drawn."""
    if isinstance(handle, Line2D):
        return _variable(handle.get_color()), "dashed" if handle.get_linestyle() == "--" else "line"
    if isinstance(handle, Collection):
        filled = len(handle.get_facecolor()) > 0
        return _variable((handle.get_facecolor() if filled else handle.get_edgecolor())[0]), "dot" if filled else "ring"
    assert isinstance(handle, Patch)
    return _variable(handle.get_edgecolor() if not handle.get_fill() else handle.get_facecolor()), (
        "area" if handle.get_fill() else "frame"
    )


def _variable(colour: Any) -> str:
    return _VARIABLES[to_hex(colour)]


def _embed(svg: str, name: str) -> str:
    """An SVG file as an element of a page: ids of its own, colours of the page, and as wide as its place is."""
    document = minidom.parseString(svg.translate(_CONTROL_CHARACTERS))  # noqa: S318 - matplotlib made it
    (root,) = document.getElementsByTagName("svg")
    for key in {*root.attributes.keys()} - {"viewBox"}:
        root.removeAttribute(key)
    root.setAttribute("aria-hidden", "true")
    for element in root.getElementsByTagName("*"):
        for key, value in element.attributes.items():
            element.setAttribute(key, _embed_value(key, value, name))
    return str(root.toxml())


def _embed_value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "xlink:href":
        return f"#{name}-{value[1:]}" if value.startswith("#") else value.replace(" ", "")
    for colour, variable in _VARIABLES.items() if key == "style" else ():
        value = value.replace(colour, f"var(--{variable})")
    return value.replace("url(#", f"url(#{name}-")

"""A page that stands alone: what a report is made of, and how it becomes HTML without anything from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from xml.dom import minidom

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

_TEMPLATE = "report.html.jinja"
_INCHES = 5.0  # a chart's width: its letters are then as large on a phone as the text around it

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
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "grid.color": _RULE,
    "legend.frameon": False,
    "image.composite_image": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$x"
}


@dataclass(frozen=True)
class Chart:
    """A drawing; `text` says what it shows to those who do not see it."""

    kind: ClassVar[str] = "chart"
    svg: Markup
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers, the first of each being what the row is about.

    Attributes:
        columns: empty where each row is a name and a fact.
        folded: opened by a click.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Matrix:
    """Shares of each row, 0 to 1, as a table that is shaded by them."""

    kind: ClassVar[str] = "matrix"
    caption: str
    names: Sequence[str]
    shares: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Picture:
    """A JPEG with what is said of it."""

    jpeg: bytes
    text: str
    caption: Sequence[str]

    @property
    def uri(self) -> str:
        """The picture itself, as an address."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Gallery:
    """Pictures in a row."""

    kind: ClassVar[str] = "gallery"
    caption: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Command:
    """Command line to copy."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and what belongs to them."""

    title: str
    sentences: Sequence[str]
    parts: Sequence[Chart | Table | Matrix | Gallery | Command] = ()


@dataclass(frozen=True)
class Page:
    """A report: the answer first, then what it rests on."""

    title: str
    headline: str
    sentences: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)


def link(text: str, address: str) -> Markup:
    """A cell of a table that leads elsewhere."""
    return Markup('<a href="{}">{}</a>').format(address, text)


def render_page(page: Page) -> str:
    """The page as HTML that needs no other file."""
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template(_TEMPLATE).render(page=page)


def chart_style() -> AbstractContextManager[None]:
    """Within this context a figure is to be drawn that becomes a chart."""
    return style.context(_STYLE)


def make_chart(figure: Figure, name: str, text: str, height: float) -> Chart:
    """A figure as part of a page.

    Args:
        name: different for every chart of a page.
        height: in inches, of a width of five.
    """
    figure.set_size_inches(_INCHES, height)
    if len(figure.axes) == 1:
        figure.axes[0].set_title("")  # the section has one
    file = io.StringIO()
    with style.context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Chart(Markup(_embed(file.getvalue(), name)), text)  # noqa: S704 - the words in it are escaped


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

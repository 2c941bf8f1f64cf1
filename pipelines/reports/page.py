"""A page that stands alone: what a report is made of, and how it becomes HTML without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATE = "report.html.jinja"
_SCRIPT = Markup(
    "document.querySelectorAll('nav a').forEach((link) => link.addEventListener('click', (event) => {"
    " event.preventDefault(); document.getElementById(link.hash.slice(1)).scrollIntoView(); }));"
)
"""Goes to a section where a link inside the page cannot, as in MLflow's frame. The page allows no other script."""
_LONG_NAME = 12  # letters from which on columns are headed by numbers


@dataclass(frozen=True)
class Key:
    """Entry of a legend: what is drawn in a colour of the page as a line, dashed, dot, frame or area."""

    text: str
    colour: str
    look: str


@dataclass(frozen=True)
class Chart:
    """A drawing with its legend; `text` says what it shows to those who do not see it."""

    kind: ClassVar[str] = "chart"
    svg: Markup
    text: str
    legend: Sequence[Key] = ()


@dataclass(frozen=True)
class Row:
    """A value with the ends of its interval, NaN or infinite where it has none, and how it is said."""

    name: str
    value: float
    low: float
    high: float
    said: str


@dataclass(frozen=True)
class Intervals:
    """Intervals below each other on one scale, whose ticks are evenly spaced."""

    kind: ClassVar[str] = "intervals"
    caption: str
    rows: Sequence[Row]
    ticks: Sequence[float]

    def place(self, value: float) -> str:
        """Return where a value is, from the first tick on, as CSS has it."""
        first, last = self.ticks[0], self.ticks[-1]
        return f"{100 * (value - first) / (last - first):.2f}%"


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

    @property
    def is_numbered(self) -> bool:
        """True if the columns are headed by numbers: not every name has room above a column."""
        return any(len(name) > _LONG_NAME for name in self.names)


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
    parts: Sequence[Chart | Intervals | Table | Matrix | Gallery | Command] = ()


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
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return environment.get_template(_TEMPLATE).render(page=page, script=_SCRIPT, script_hash=f"sha256-{digest}")

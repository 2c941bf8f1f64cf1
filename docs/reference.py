"""The reference of all entry points, from their configs: a page of what `make docs` builds."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from pipelines.configs.entry_points import ENTRY_POINTS, config_type

_TITLE = """# Reference

Every entry point with its parameters: `run -e NAME -P parameter=value`, or `python -m pipelines.NAME
--parameter value`. Generated from the config dataclasses.
"""


def render_reference() -> str:
    """The reference in Markdown."""
    return "\n".join([_TITLE, *(_render(name) for name in ENTRY_POINTS)])


def _render(name: str) -> str:
    config = config_type(name)
    rows = [f"| `{field}` | {default} | {_cell(text)} |" for field, default, text in describe(config)]
    purpose = inspect.cleandoc(config.__doc__ or "")
    return "\n".join([f"## {name}", "", purpose, "", "| parameter | default | |", "|---|---|---|", *rows, ""])


def describe(config: type, defaults: Any = None) -> Iterator[tuple[str, str, str]]:
    """Name, default and docstring of every flat field; `defaults` is the instance that a nested config starts from."""
    docstrings = _docstrings(config)
    for field in fields(config):
        factory = field.default_factory
        value = getattr(defaults, field.name) if defaults else field.default if factory is MISSING else factory()
        if is_dataclass(value):
            yield from describe(type(value), value)
        else:
            default = "required" if value is MISSING else f"`{value}`" if value != "" else "empty"
            yield field.name, default, docstrings[field.name]


def _docstrings(config: type) -> dict[str, str]:
    """The string below each field, in the class or in one that it is made from."""
    found: dict[str, str] = {}
    for base in reversed([base for base in config.__mro__ if is_dataclass(base)]):
        body = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(line.target, ast.Name)
                assert isinstance(below.value, ast.Constant)
                found[line.target.id] = str(below.value.value)
    return found


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

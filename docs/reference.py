"""The reference of all entry points, from their configs: a page of what `make docs` builds."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from typing import Any, get_type_hints

from pipelines.configs.entry_points import ENTRY_POINTS, config_type

_TITLE = """# Reference

Every entry point with its parameters: `transfer-lab NAME --parameter value`, or `mlflow run .
--env-manager local -e NAME -P parameter=value`. Generated from the config dataclasses.
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
    """Yield name, default and docstring of every flat field; `defaults` is the instance that a group starts from."""
    docstrings, kinds = _docstrings(config), get_type_hints(config)
    for field in fields(config):
        factory = field.default_factory
        value = getattr(defaults, field.name) if defaults else field.default if factory is MISSING else factory()
        if is_dataclass(kinds[field.name]):
            yield from describe(kinds[field.name], None if value is MISSING else value)
        else:
            default = "required" if value is MISSING else f"`{value}`" if value != "" else "empty"
            yield field.name, default, docstrings[field.name]


def _docstrings(config: type) -> dict[str, str]:
    """Return the string below each field of a class."""
    body = ast.parse(inspect.getsource(config)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        line.target.id: str(below.value.value)
        for line, below in pairwise(body.body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

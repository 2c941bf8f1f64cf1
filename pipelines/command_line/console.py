"""`transfer-lab NAME ...`: every command by its name, in a checkout or where the wheel is installed."""

from __future__ import annotations

import difflib
import inspect
import sys
import textwrap
from importlib import import_module
from typing import NoReturn

from pipelines.command_line.command import BAD_INPUT, run_command_line
from pipelines.configs.entry_points import ENTRY_POINTS, config_type
from pipelines.results.columns import WIDTH


def main(program: str = "transfer-lab") -> None:
    """Run the command that the first argument names with the remaining ones; without one, list the commands."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(list_commands(f"{program} NAME"))
        return
    if name not in ENTRY_POINTS:
        _refuse(name)
    sys.argv = [name, *arguments]
    run_command_line(config_type(name), import_module(f"pipelines.{name}").run, f"{program} {name}")


def list_commands(program: str) -> str:
    """List every command in a line: its name and the first line of its config's docstring."""
    width = max(map(len, ENTRY_POINTS))
    purposes = {name: inspect.cleandoc(config_type(name).__doc__ or "").partition("\n")[0] for name in ENTRY_POINTS}
    below = " " * (width + 4)
    lines = [textwrap.fill(f"  {name:<{width}}  {of}", WIDTH, subsequent_indent=below) for name, of in purposes.items()]
    help_line = f"Parameters of a command: {program} --help"
    return "\n".join([f"usage: {program} [--parameter value ...]", "", *lines, "", help_line])


def _refuse(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, ENTRY_POINTS, n=1)
    hint = f"did you mean {near[0]}?" if near else "transfer-lab --help lists them"
    print(f"error: expected the name of a command, got {name!r}; {hint}", file=sys.stderr)
    sys.exit(BAD_INPUT)

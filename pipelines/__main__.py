"""List the commands: `python -m pipelines`."""

from __future__ import annotations

from pipelines.command_line.console import list_commands

if __name__ == "__main__":
    print(list_commands("python -m pipelines.NAME"))

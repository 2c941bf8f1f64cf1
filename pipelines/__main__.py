"""Every command by its name: `python -m pipelines NAME ...`, as `transfer-lab NAME ...`."""

from __future__ import annotations

from pipelines.command_line.console import main

if __name__ == "__main__":
    main("python -m pipelines")

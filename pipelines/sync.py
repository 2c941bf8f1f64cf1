"""Upload what a tracking server has missed while it was away.

    python -m pipelines.sync

Repeats every command whose run was cut short by the server: what it has computed is taken from its journal or its
checkpoint, so that only the rest is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from pipelines.command_line.command import parse_config, run_command_line
from tl_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """Upload what a tracking server has missed while it was away."""


def run(config: SyncConfig) -> int:  # noqa: ARG001 - every entry point takes its config
    """Repeat the commands that wait; returns how many there were.

    Raises:
        InputError: some of them failed again; they are kept.
    """
    from pipelines.configs.entry_points import config_type
    from pipelines.store.spool import open_spool

    failures = []
    with open_spool() as waiting:
        for command in waiting:
            print(f"sync: {command.entry_point} {' '.join(command.arguments)}")
            try:
                module = import_module(f"pipelines.{command.entry_point}")
                module.run(parse_config(config_type(command.entry_point), command.arguments))
            except InputError as error:
                failures.append(f"{command.entry_point}: {error}")
    if failures:
        raise InputError(f"{len(failures)} of {len(waiting)} commands failed again and are kept ({failures[0]})")
    print(f"sync: {len(waiting)} commands uploaded")
    return len(waiting)


if __name__ == "__main__":
    run_command_line(SyncConfig, run)

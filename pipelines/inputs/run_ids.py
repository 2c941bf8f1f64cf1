"""Run ids in a config: abbreviated by the user, in full from here on."""

from __future__ import annotations

from typing import TypeVar

from pipelines.configs.fields import flat_params, with_values
from pipelines.inputs.names import is_run
from pipelines.store.find import find_run

Config = TypeVar("Config")


def with_run_ids(config: Config, **kinds: str | tuple[str, ...]) -> Config:
    """Return the config with full run ids for those that are abbreviated.

    Args:
        kinds: kind, or kinds, of the run that each field names; a field that is empty or names no run is left alone.

    Raises:
        InputError: a run is not found.
    """
    values = flat_params(config)
    found = {
        name: find_run(values[name], *([kind] if isinstance(kind, str) else kind)).info.run_id
        for name, kind in kinds.items()
        if values[name] and (name != "weights" or is_run(values[name]))
    }
    return with_values(config, **found)

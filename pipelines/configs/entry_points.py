"""The entry points, and the config dataclass of each."""

from __future__ import annotations

import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from pipelines.configs.fields import ROOT

REPORT_ARTIFACT = "report.html"
"""Where a run keeps its report, and what `report` calls the file by default."""

ENTRY_POINTS = (
    "main",
    "classify",
    "prepare",
    "lr_find",
    "pretrain",
    "train",
    "finetune",
    "compare",
    "report",
    "search",
    "pareto",
    "fit",
    "export",
    "register",
    "register_backbone",
    "rollback",
    "predict",
    "score",
    "reproduce",
)


def config_type(entry_point: str) -> type:
    """The config dataclass of an entry point: `finetune` has `FinetuneConfig`."""
    module = import_module(f"pipelines.{entry_point}")
    name = "".join(part.capitalize() for part in entry_point.split("_")) + "Config"
    config: type = getattr(module, name)
    return config


def project_version() -> str:
    """Version of the installed distribution; in a checkout that is not installed, that of pyproject.toml."""
    try:
        return version("transfer-lab")
    except PackageNotFoundError:
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])

"""Reproductions: small files that say which entry point with which arguments makes a known system."""

from __future__ import annotations

import difflib
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.command_line.command import parse_config
from pipelines.configs.entry_points import config_type
from pipelines.configs.fields import ROOT, parameters
from tl_core.errors import InputError

_PACKAGED = Path(__file__).resolve().parents[1] / "reproductions"
REPRODUCTIONS = _PACKAGED if _PACKAGED.is_dir() else ROOT / "reproductions"
"""Folder of the files: inside this package in a wheel, beside it in a checkout."""

DATA_FIELD = {"train": "data", "finetune": "target"}
_FIELDS = {"question", "command", "published", "measured", "entry_point", "arguments", "variants"}


@dataclass(frozen=True)
class Reproduction:
    """Contents of a file of reproductions/.

    Attributes:
        published: the result of the system that the reproduction stands for, with its setting.
        measured: ours, with its command and interval; empty where nobody has measured it.
        variants: arguments of the entry point by the name of each variant, in order.
    """

    name: str
    published: str
    measured: str
    entry_point: str
    variants: Mapping[str, Mapping[str, str]]


def reproduction_names() -> list[str]:
    """Every reproduction that comes along."""
    return sorted(path.stem for path in REPRODUCTIONS.glob("*.toml"))


def list_reproductions() -> str:
    """Every reproduction that comes along, a line each: its name and the question that it answers."""
    names = reproduction_names()
    questions = [tomllib.loads((REPRODUCTIONS / f"{name}.toml").read_text())["question"] for name in names]
    lines = [f"  {name:<18} {' '.join(question.split())}" for name, question in zip(names, questions, strict=True)]
    return "\n".join(["Known systems:", *lines])


def load_reproduction(name: str) -> Reproduction:
    """Read a reproduction by its name, or by the path of a .toml file.

    Raises:
        InputError: there is none (the nearest name is given), or the file is not a reproduction.
    """
    path = Path(name) if name.endswith(".toml") else REPRODUCTIONS / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, reproduction_names(), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"expected one of {', '.join(reproduction_names())}, got {name!r}{hint}")
    try:
        fields = tomllib.loads(path.read_text())
        entry_point = fields.get("entry_point", "none")
        shared = fields.get("arguments", {})
        rows = fields.get("variants", [{"name": path.stem}])
        variants = {row["name"]: {k: str(v) for k, v in {**shared, **row}.items() if k != "name"} for row in rows}
        published, measured = fields.get("published", ""), fields.get("measured", "")  # one's own may have neither
        reproduction = Reproduction(path.stem, published, measured, entry_point, variants)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} is not a reproduction ({type(error).__name__}: {error})") from error
    unknown = sorted(set(fields) - _FIELDS)
    if unknown or entry_point not in DATA_FIELD:
        wrong = f"the field {unknown[0]}" if unknown else f"the entry point {entry_point!r}"
        allowed = ", ".join(sorted(_FIELDS) if unknown else DATA_FIELD)
        raise InputError(f"{path}: expected {allowed}, got {wrong}")
    return reproduction


def plan_runs(reproduction: Reproduction, data: str, weights: str, overrides: str) -> dict[str, dict[str, Any]]:
    """The configs of every run: by data spec, then by variant. All are checked before the first run starts.

    Raises:
        InputError: an unknown argument, a bad value, or not as many weights as variants.
    """
    specs, starts = _list("data", data), _list("weights", weights)
    names = list(reproduction.variants)
    if len(starts) not in (1, len(names)):
        raise InputError(f"expected one value of weights, or one per variant ({', '.join(names)}), got {len(starts)}")
    starts = starts * len(names) if len(starts) == 1 else starts
    replaced = _parse_overrides(overrides)
    variants = _labelled(reproduction.variants, replaced, starts)
    plan: dict[str, dict[str, Any]] = {}
    for spec in specs:
        plan[spec] = {}
        for name, (arguments, start) in variants.items():
            given = {DATA_FIELD[reproduction.entry_point]: spec, "weights": start}
            title = {"name": name} if reproduction.entry_point == "train" else {}
            plan[spec][name] = _build(reproduction, {**title, **arguments, **given, **replaced})
    return plan


def runner_of(entry_point: str) -> Callable[[Any], str]:
    """The function that runs a config of an entry point and returns the run's id."""
    run: Callable[[Any], str] = import_module(f"pipelines.{entry_point}").run
    return run


def _labelled(
    variants: Mapping[str, Mapping[str, str]], replaced: Mapping[str, str], starts: Sequence[str]
) -> dict[str, tuple[dict[str, str], str]]:
    """Arguments and weights of each variant by a name that is true: it says what was replaced of what sets it apart.

    Variants that replacing has made the same are run once.
    """
    apart = {key for row in variants.values() for key in row if len({of.get(key) for of in variants.values()}) > 1}
    words = ", ".join(f"{key}={value}" for key, value in replaced.items() if key in apart)
    rows = {name: ({**row, **replaced}, start) for (name, row), start in zip(variants.items(), starts, strict=True)}
    if not words:
        return rows
    different: dict[str, tuple[dict[str, str], str]] = {}
    for name, row in rows.items():
        if row not in different.values():
            different[f"{name}, {words}"] = row
    if len(different) > 1:
        return different
    return dict(zip([words], different.values(), strict=True))


def _list(name: str, text: str) -> list[str]:
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values or (len(set(values)) < len(values) and name == "data"):
        raise InputError(f"expected {name} as one or more different values separated by commas, got {text!r}")
    return values


def _parse_overrides(text: str) -> dict[str, str]:
    try:
        return dict(part.split("=", 1) for part in shlex.split(text))
    except ValueError as error:
        raise InputError(f"expected overrides as name=value, separated by spaces, got {text!r}") from error


def _build(reproduction: Reproduction, arguments: Mapping[str, str]) -> Any:
    config = config_type(reproduction.entry_point)
    known = [name for name, _, _ in parameters(config)]
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"reproduction {reproduction.name}: {reproduction.entry_point} has no argument {name!r}{hint}"
            )
    return parse_config(config, [text for name, value in arguments.items() for text in (f"--{name}", value)])

"""Kill a command at a random moment, repeat it, and compare with a run that nobody disturbed.

    python -m tests.chaos.kills --kills 50 --seed 0

Prints one line per kill and a table. When a command dies, by which signal, and who dies with it is drawn from the seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import tyro
from mlflow.entities import Run

from tl_core.data.dataset import copy_files, load_dataset

PROCESSES = get_context("forkserver")  # what takes seconds to import is there before a command starts
PROCESSES.set_forkserver_preload(["mlflow", "optuna", "pandas", "timm", "torch", "matplotlib.pyplot", "onnxruntime"])

EXPERIMENT, MODEL = "chaos", "chaos-model"
CLASSIFIER = "chaos-classifier"
N_IMAGES = 900
SMALL = "--image_size 16"
SHAPE = "--n_way 5 --n_shot 5 --n_query 5"
RECIPE = "--freeze_depth 0.5 --steps 8"
TIMED = ("per_second", "seconds", "n_resumed", "latency")
"""Words in names of metrics that speak of time, or of the interruption itself."""
SIGNALS = {"killed": signal.SIGKILL, "ended": signal.SIGTERM, "interrupted": signal.SIGINT}

COMMANDS: dict[str, str] = {
    "pretrain": f"pretrain {SMALL} --epochs 4 --batch_size 64 --device cpu --seed 1",
    "finetune": f"finetune --weights {{pretrain}} {SHAPE} --n_episodes 24 {RECIPE} --workers 1",
    "search": f"search --weights {{pretrain}} {SHAPE} --n_trials 4 --n_episodes 5 --final_episodes 5 --steps 4",
    "predict": "predict --model {model} --images {images} --output {folder}/predictions.csv --batch_size 4",
    "register": f"register --run {{export}} --finetune_run {{finetune}} --name {MODEL}",
    "train": f"train --data {{learned}} {SMALL} --backbone resnet10_small --epochs 4 --batch_size 64 --device cpu",
    "fit": f"fit --weights {{pretrain}} {RECIPE}",
    "export": "export --run {fit}",
    "main": f"main --weights {{pretrain}} {SHAPE} --n_trials 2 --n_episodes 10 --device cpu --name {MODEL}",
    "classify": f"classify --data {{learned}} --weights pixels {SMALL} --name {CLASSIFIER}",
    "score": "score --model {classifier} --data {new}",
    "reproduce": "reproduce --name {reproduction} --data {learned} --weights {pretrain}",
}

REPRODUCTION = """
question = "Which head?"
command = "none"
published = "nothing"
entry_point = "finetune"

[arguments]
n_way = 5
n_shot = 5
n_query = 5
n_episodes = 8

[[variants]]
name = "linear"

[[variants]]
name = "prototypes"
head = "prototypes"
"""


@dataclass(frozen=True)
class Config:
    """Kill commands and repeat them."""

    kills: int = 50
    """Kills in all, each command in turn."""
    seed: int = 0
    """Seed of the moments."""
    first: int = 0
    """Number of the first kill, to go on where an earlier call ended."""
    only: str = ""
    """One of the commands alone."""
    pace: float = 1.0
    """Share of the undisturbed run's time within which a kill falls; less than 1 where that run was made in a rush."""
    folder: str = ""
    """Folder that keeps the undisturbed runs for later calls; empty makes them anew."""


def _become(command: list[str], environment: dict[str, str], log: str) -> None:
    """Be `python -m pipelines.<command>` in this process."""
    os.setsid()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = command
    try:
        runpy.run_module(f"pipelines.{command[0]}", run_name="__main__", alter_sys=True)
    finally:
        # As an interpreter does at its end; a forked process would first wait five minutes for idle workers of joblib.
        threading._shutdown()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class World:
    """A store, a cache and an output folder that one case has to itself."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """The variables of a process that works here."""
        return {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
            "OPTUNA_STORAGE": f"sqlite:///{self.folder / 'studies.db'}",
            "TRANSFER_LAB_CACHE": str(self.folder / "cache"),
            "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
        }

    def client(self) -> mlflow.MlflowClient:
        """A client of the store."""
        return mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, kind: str = "") -> list[Run]:
        """Runs of one kind, the newest first."""
        client = self.client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        wanted = f"tags.kind = '{kind}'" if kind else ""
        return list(client.search_runs([experiment.experiment_id], wanted, max_results=5000))

    def finished(self, kind: str) -> list[Run]:
        """FINISHED runs of one kind, the newest first; some may be steps of other commands."""
        return [run for run in self.runs(kind) if run.info.status == "FINISHED"]

    def newest(self, kind: str) -> Run | None:
        """The newest run of one kind."""
        return next(iter(self.runs(kind)), None)

    def start(self, kind: str, names: Mapping[str, str]) -> ForkServerProcess:
        """Start the command of one entry point, at the head of a process group of its own."""
        command = COMMANDS.get(kind, kind).format(**names, folder=self.folder / "out").split()
        process = PROCESSES.Process(target=_become, args=(command, self.environment(), str(self.folder / "log")))
        process.start()
        return process

    def run(self, kind: str, names: Mapping[str, str]) -> None:
        """Run a command to its end."""
        process = self.start(kind, names)
        process.join()
        if process.exitcode:
            raise SystemExit(f"{kind} ended with {process.exitcode}:\n{(self.folder / 'log').read_text()[-3000:]}")

    def n_runs(self) -> int:
        """How many runs there are, asked so that it costs next to nothing."""
        with closing(sqlite3.connect(f"file:{self.folder / 'mlflow.db'}?mode=rw", uri=True, timeout=30)) as database:
            return int(database.execute("select count(*) from runs").fetchone()[0])


@dataclass
class Case:
    """One kill and what came of it."""

    number: int
    kind: str
    signal: str
    victim: str
    after: float
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    finished: bool = False
    """Whether the command was done before the kill came."""

    @property
    def has_registered_twice(self) -> bool:
        """True if it died between its registration and the end of its run, which docs/faults.md says is left."""
        return self.kind in ("classify", "main") and any(words.startswith("versions ") for words in self.duplicated)

    def line(self) -> str:
        """As one line of the report."""
        found = "; ".join(self.lost + self.duplicated + self.stale) or "equal"
        when = "after its run had ended" if self.finished else f"{self.after:5.2f} s into its run"
        return f"{self.number:3d} {self.kind:<9} {self.victim:<7} {self.signal} {when}: {found}"


def prepare(folder: Path) -> dict[str, str]:
    """The undisturbed runs, and the names that later commands need; everything in one folder."""
    base = World(folder / "base")
    (base.folder / "out").mkdir(parents=True)
    base.client().create_experiment(EXPERIMENT, (base.folder / "artifacts").as_uri())
    names = {name: str(folder / f"{name}.zip") for name in ("images", "learned", "new")}
    digits = load_dataset("digits:target", 16, cache_dir=base.folder / "cache").file_names
    for name, files in {"images": digits[:N_IMAGES], "learned": digits[::9], "new": digits[4::18]}.items():
        copy_files("digits:target", files, Path(names[name]), base.folder / "cache")
    names["reproduction"] = str(folder / "heads.toml")
    Path(names["reproduction"]).write_text(REPRODUCTION)
    for kind in ("pretrain", "finetune", "search", "fit", "export", "classify"):
        names[kind] = _prepare_kind(base, folder, kind, names)
    names["model"] = str(base.folder / "artifacts" / names["export"] / "artifacts" / "onnx" / "classifier.onnx")
    exported = base.newest("export")  # by classify
    assert exported is not None
    names["classifier"] = str(
        base.folder / "artifacts" / exported.info.run_id / "artifacts" / "onnx" / "classifier.onnx"
    )
    for kind in ("predict", "register", "train", "score", "reproduce", "main"):
        _prepare_kind(base, folder, kind, names)
    return names


def _prepare_kind(base: World, folder: Path, kind: str, names: Mapping[str, str]) -> str:
    """Run a command undisturbed; returns its run's id. What was there before it is kept, to start killed ones from."""
    copy_world(base, World(folder / kind))
    base.run(kind, names)
    copy_world(base, World(folder / f"{kind}-done"))
    run = base.newest(kind)
    assert run is not None
    return run.info.run_id


def copy_world(source: World, target: World) -> None:
    """A store, cache and output of its own; artifacts of finished runs are shared, nobody writes them again."""
    shutil.rmtree(target.folder, ignore_errors=True)
    shutil.copytree(source.folder, target.folder, ignore=shutil.ignore_patterns("artifacts"))


def result_of(world: World, kind: str) -> dict[str, object]:
    """All that a command is for, without what speaks of time."""
    done = world.finished(kind)
    if not done:
        return {"finished runs": 0}
    run, client = done[0], world.client()
    found: dict[str, object] = {"finished runs": len(done)}
    for name, value in run.data.metrics.items():
        if not _is_timed(name):
            history = client.get_metric_history(run.info.run_id, name)
            found[f"metric {name}"] = [(point.step, point.value) for point in history] if len(history) > 1 else value
    children = [r for r in world.runs() if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    for child in children:
        of_child = f"child {_without_ids(child)}"
        found[of_child] = child.info.status
        found |= {f"{of_child}, metric {n}": v for n, v in child.data.metrics.items() if not _is_timed(n)}
        found |= {f"{of_child}, param {n}": v for n, v in child.data.params.items() if not _is_run_id(v)}
    found["children"] = Counter(map(_without_ids, children))
    return {**found, **_files_of(world, kind, run)}


def _is_timed(metric: str) -> bool:
    return any(word in metric for word in TIMED)


def _is_of_one_run(tag: str) -> bool:
    return tag.endswith("_run") or _is_timed(tag)


def _is_run_id(value: str) -> bool:
    return re.search("[0-9a-f]{32}", value) is not None


def _without_ids(run: Run) -> str:
    """Return a run's name without the ids of others, which are new in every run."""
    return re.sub(r"\b[0-9a-f]{8}\b", "ID", str(run.info.run_name))


def _files_of(world: World, kind: str, run: Run) -> dict[str, object]:
    artifacts, out = Path(str(run.info.artifact_uri).removeprefix("file://")), world.folder / "out"
    files_with_equal_bytes = {
        "pretrain": ["backbone/weights.safetensors"],
        "finetune": ["confusion.json"],
        "search": ["recipe.json", "finalists.csv"],
        "train": ["predictions.parquet"],
        "classify": ["confusion.json"],
        "score": ["confusion.json"],
    }
    found: dict[str, object] = {name: _digest(artifacts / name) for name in files_with_equal_bytes.get(kind, [])}
    if kind == "finetune":
        found["table"] = pd.read_parquet(artifacts / "episodes.parquet").drop(columns="seconds").to_csv()
    if kind == "predict":
        found |= {"output": _digest(out / "predictions.csv"), "files": sorted(path.name for path in out.iterdir())}
    if kind in ("register", "main", "classify"):
        found |= _versions_of(world, CLASSIFIER if kind == "classify" else MODEL)
    names = sorted(str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file())
    return {**found, "artifacts": names, "gate": run.data.tags.get("gate", "")}


def _versions_of(world: World, model: str) -> dict[str, object]:
    versions = world.client().search_model_versions(f"name = '{model}'")
    aliases = world.client().get_registered_model(model).aliases
    return {
        "versions": sorted(str(version.version) for version in versions),
        "aliases": {name: str(version) for name, version in aliases.items()},
        "tags": {v.version: {k: t for k, t in v.tags.items() if not _is_of_one_run(k)} for v in versions},
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def kill_once(case: Case, folder: Path, names: Mapping[str, str], expected: Mapping[str, object]) -> None:
    """Start a command in a world of its own, kill it, repeat it, compare."""
    world = World(folder / f"case-{case.number}")
    copy_world(World(folder / case.kind), world)
    n_before = len(world.finished(case.kind))
    _kill(world, case, names)
    case.finished = len(world.finished(case.kind)) > n_before
    if not case.finished:
        world.run(case.kind, names)
    _compare(case, expected, result_of(world, case.kind))
    case.stale += [f"{r.info.run_name} is RUNNING" for r in world.runs() if r.info.status == "RUNNING"]
    case.stale += [f"left {path.name}" for path in _left_over(world.folder / "cache")]
    shutil.rmtree(world.folder)


def draw_case(number: int, kind: str, seconds: float) -> Case:
    """When a command dies, and who dies with it."""
    rng = np.random.default_rng([number, *kind.encode()])
    victim, signal_name = str(rng.choice(["process", "group"])), str(rng.choice(list(SIGNALS)))
    return Case(number, kind, signal_name, victim, float(rng.uniform(0, seconds)))


def _left_over(cache: Path) -> list[Path]:
    """Files that are neither data, nor a lock, nor a lasting index."""
    kept = (".lock", ".json", ".uint8", ".png")
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix not in kept]


def seconds_of(world: World, kind: str) -> float:
    """How long the undisturbed run took."""
    run = world.newest(kind)
    assert run is not None
    assert run.info.end_time is not None
    return (run.info.end_time - run.info.start_time) / 1000


def _kill(world: World, case: Case, names: Mapping[str, str]) -> None:
    known = world.n_runs()
    process = world.start(case.kind, names)
    assert process.pid is not None
    while process.is_alive() and world.n_runs() <= known:
        time.sleep(0.005)
    process.join(case.after)
    with suppress(ProcessLookupError):
        (os.kill if case.victim == "process" else os.killpg)(process.pid, SIGNALS[case.signal])
    process.join(60)  # what is asked to end may write its last words
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    time.sleep(0.2)
    with suppress(ProcessLookupError):  # what has outlived its parent, if anything has
        os.killpg(process.pid, signal.SIGKILL)


def _compare(case: Case, expected: Mapping[str, object], found: Mapping[str, object]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        wanted, got = expected.get(name), found.get(name)
        if wanted == got:
            continue
        more = _size(got) > _size(wanted)
        (case.duplicated if more else case.lost).append(f"{name} is {str(got)[:120]}, not {str(wanted)[:120]}")


def _size(value: object) -> int:
    if isinstance(value, Counter):
        return sum(value.values())
    return value if isinstance(value, int) else len(value) if isinstance(value, list | dict) else 0


def table_of(cases: list[Case]) -> str:
    """Kills, and what was lost, duplicated or left open, by command."""
    lines = [f"{'command':<10} kills  in work  lost  duplicated  stale"]
    columns: list[Callable[[Case], bool]] = [
        lambda c: True,
        lambda c: not c.finished,
        lambda c: bool(c.lost),
        lambda c: bool(c.duplicated),
        lambda c: bool(c.stale),
    ]
    for kind in [*COMMANDS, "all"]:
        of_kind = [case for case in cases if kind in (case.kind, "all")]
        counts = [sum(map(column, of_kind)) for column in columns]
        lines.append("{:<10} {:5d}  {:7d}  {:4d}  {:10d}  {:5d}".format(kind, *counts))
    return "\n".join(lines)


def run(config: Config) -> list[Case]:
    """Prepare, kill, compare and print."""
    kinds = [config.only] if config.only else list(COMMANDS)
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = Path(config.folder or scratch)
        names_file = folder / "names.json"
        if not names_file.is_file():
            names_file.write_text(json.dumps(prepare(folder)))
        names: dict[str, str] = json.loads(names_file.read_text())
        if not config.kills:
            return []
        expected = {kind: result_of(World(folder / f"{kind}-done"), kind) for kind in kinds}
        cases = []
        for number in range(config.first, config.first + config.kills):
            kind = kinds[number % len(kinds)]
            seconds = config.pace * seconds_of(World(folder / f"{kind}-done"), kind)
            # The seed shifts all numbers, so that another one draws other moments.
            cases.append(draw_case(number + 1000 * config.seed, kind, seconds))
            kill_once(cases[-1], folder, names, expected[kind])
            print(cases[-1].line(), flush=True)
    print(table_of(cases), flush=True)
    return cases


if __name__ == "__main__":
    sys.exit(any(case.lost or case.duplicated or case.stale for case in run(tyro.cli(Config, use_underscores=True))))

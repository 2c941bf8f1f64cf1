"""The commands of the README and of the pages it leads to, one after the other, on made data under their names."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
import requests

from tests.conftest import free_port, own_store, write_colour_images
from tests.test_documents import ROOT, commands, config_of, parse_run, runs_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("training", "serving", "reproductions"))]
DEFAULT_NAME = "my-classifier"  # of what `classify` registers
RUNS = sorted(
    (line for page in PAGES for line in runs_of(page) if " rollback " not in line),
    key=lambda line: f"models:/{DEFAULT_NAME}@" in line,  # after all that register a version
)
SERVING_PAGE = commands(ROOT / "docs" / "serving.md")
SERVING = [line for line in SERVING_PAGE if line.startswith("python -m serving ")]  # the page: test_page.py
SERVER, *QUESTION = [line for line in SERVING_PAGE if re.match("mlflow models serve|.printf|  curl", line)]
BIN = Path(sys.executable).parent

SMALL = {
    "pretrain": {"backbone": "resnet10_small", "image_size": "16", "start_size": "0", "epochs": "1"},
    "finetune": {"n_episodes": "3"},
    "search": {"n_trials": "2", "n_episodes": "2", "final_episodes": "2", "report_episodes": "2"},
    "lr_find": {"backbone": "resnet10_small", "image_size": "16"},
    "pareto": {"image_size": "16", "n_trials": "3", "n_episodes": "2"},
    "train": {"backbone": "resnet10_small", "image_size": "16", "epochs": "1,1"},
    "main": {"backbone": "resnet10_small", "image_size": "16", "epochs": "1", "n_episodes": "2", "n_trials": "0"},
}
"""Smaller values of what would take long; all other arguments are those of the page."""

FEW = {"n_way": "3", "n_shot": "2", "n_query": "3"}
"""Shape of episodes that the made data can give."""

SMALL_RECIPE = {
    "finetune": "image_size=32 n_episodes=3 n_way=3 n_shot=2 n_query=3",
    "train": "image_size=75 epochs=1 freeze_depth=1 optimizer=adam max_lr=1e-3 augment=none schedule=constant",
}
OFFLINE = {"timm": "random"}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Records and data of all commands; they run inside it."""
    with own_store(tmp_path_factory.mktemp("readme")) as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = write_colour_images(folder / "my_folder")
        for seed, name in enumerate(("train.tar", "val.tar", "photos.tar"), start=11):
            with tarfile.open(folder / name, "w") as archive:
                archive.add(write_colour_images(folder / "source", seed=seed), "source")
        for name in ("EuroSAT", "hymenoptera", "flowers-recognition"):
            shutil.make_archive(name, "zip", data)
        write_colour_images(folder / "CUB_200_2011" / "images", seed=2)
        for seed, part in enumerate(("train", "valid", "test")):
            write_colour_images(folder / "CINIC-10" / part, 8, seed=seed)
        pictures = sorted(write_colour_images(folder / "ISIC" / "pictures").rglob("*.png"))
        rows = [f"{path.relative_to(folder / 'ISIC')},{path.parent.name}" for path in pictures]
        (folder / "ISIC" / "labels.csv").write_text("\n".join(["image,label", *rows]))
        write_colour_images(folder / "new_folder", 4, seed=5)
        write_colour_images(folder / "new_images", 2, seed=6)
        shutil.copytree(data / "red", folder / "photos")
        names = sorted(path.name for path in (folder / "photos").iterdir())
        rows = [f"{name},{'red' if position % 2 else 'green'}" for position, name in enumerate(names)]
        (folder / "photos" / "corrections.csv").write_text("\n".join(["image,label", *rows]))
        yield folder


@pytest.fixture(scope="module")
def runs() -> dict[str, str]:
    """From what the pages call a run to its id, filled by the commands."""
    return {}


def arguments(line: str, runs: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The entry point of a line and its arguments, those of earlier runs and smaller numbers put in."""
    name, given = parse_run(line)
    given = {key: ",".join(runs.get(part, part) for part in value.split(",")) for key, value in given.items()}
    given = {key: OFFLINE.get(value, value) for key, value in given.items()} | SMALL.get(name, {})
    if "n_way" in given or "novel" in given:
        given |= FEW
    if name == "reproduce":
        entry_point = "finetune" if given["name"].startswith("fewshot") else "train"
        given["overrides"] = SMALL_RECIPE[entry_point]
    return name, given


def start(name: str, given: dict[str, str]) -> str:
    run_id: str = import_module(f"pipelines.{name}").run(config_of(name, given))
    return run_id


@pytest.mark.parametrize("line", RUNS, ids=lambda line: parse_run(line)[0])
def test_a_run_of_the_pages(line: str, runs: dict[str, str]) -> None:
    name, given = arguments(line, runs)
    runs[f"{name.upper()}_RUN"] = runs["RUN_ID"] = start(name, given)
    assert len(runs["RUN_ID"]) == 32
    if name == "train":
        runs["OTHER_TRAIN_RUN"] = start(name, given | {"augment": "flip"})


@pytest.mark.parametrize("line", SERVING, ids=["folder", "archive"])
def test_an_inference_of_the_pages(line: str, runs: dict[str, str], folder: Path) -> None:
    import mlflow

    found = mlflow.artifacts.download_artifacts(f"runs:/{runs['EXPORT_RUN']}/onnx/classifier.onnx")
    shutil.copy(found, folder / "classifier.onnx")
    _, *words = shlex.split(line, comments=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / words[4]).is_file()


def make(target: str, *variables: str) -> list[str]:
    """A `make` of the README, on the environment that the tests run in."""
    return ["make", "-C", str(ROOT), f"BIN={BIN}", "-o", "setup", target, *variables]


@contextmanager
def serving(command: list[str], port: int, page: str) -> Iterator[str]:
    """A server as its user starts it, until Ctrl-C; yields its address when `page` answers."""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=silent, stderr=silent)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while not _answers(f"{address}/{page}"):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.5)
        yield address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(30)


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.mark.timeout(240)
def test_the_curl_of_the_page_gets_a_prediction(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of `register` above left a champion under the page's name, in the store of the working directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    shutil.copy(next((folder / "my_folder" / "red").iterdir()), folder / "photo.jpg")
    port = free_port()
    command = SERVER.replace("5001", str(port))
    assert command != SERVER
    with serving(shlex.split(command), port, "ping"):
        asked = "\n".join(QUESTION).replace("5001", str(port))
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert '"label": "red"' in done.stdout, done.stdout


@pytest.mark.timeout(900)  # it estimates at several numbers of labelled images, forty episodes each
def test_make_classify_leads_from_a_folder_to_one_file(runs: dict[str, str], folder: Path) -> None:
    variables = (f"DATA={folder / 'my_folder'}", f"WEIGHTS={runs['PRETRAIN_RUN']}", "NAME=mine")
    done = subprocess.run(make("classify", *variables), capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    assert "classifier.onnx" in done.stdout


def test_make_classify_without_data_says_what_is_missing() -> None:
    done = subprocess.run(make("classify"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: DATA is missing; give a folder" in done.stderr


@pytest.mark.timeout(240)
def test_make_ui_shows_the_runs(runs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", os.environ["MLFLOW_TRACKING_URI"])
    port = free_port()
    with serving(make("ui", f"PORT={port}"), port, "health") as address:
        asked = {"run_id": runs["PRETRAIN_RUN"]}
        found = requests.get(f"{address}/api/2.0/mlflow/runs/get", params=asked, timeout=30).json()
    assert found["run"]["info"]["run_name"].startswith("pretrain resnet10_small on ")

"""`python -m serving.page`: what is shown is what batch inference says, and nobody else hears of it."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.batch import Options, predict_batches
from serving.model import OnnxClassifier
from serving.page import describe_file, look_at
from serving.sources import open_source
from serving.tables import Prediction
from serving.trust import say_belief, say_trust
from tests.browser import Tab, needs_chromium
from tests.conftest import ROOT, free_port
from tests.serving.conftest import CLASS_NAMES, METADATA, write_model

OWN = ROOT / ".cache" / "page" / "bin" / "python"
"""Interpreter of the environment that `make test-browser` makes for Gradio."""
WITH_GRADIO = sys.executable if importlib.util.find_spec("gradio") else str(OWN) if OWN.exists() else ""
BARRED = METADATA | {"believe_from": "0.8", "wanted_precision": "0.95"}


@pytest.fixture
def barred(tmp_path: Path) -> OnnxClassifier:
    """The model with a recommended probability of 80 %."""
    return OnnxClassifier.load(write_model(tmp_path / "barred.onnx", BARRED), n_threads=1)


def predicted(probability: float, unlike: bool | None = None, error: str = "") -> Prediction:
    return Prediction("a.png", "", (("red", probability),), error, unlike)


@pytest.mark.parametrize(
    ("prediction", "sentence"),
    [
        (predicted(0.8), "Yes: 80 % is at least 80 %, from which on at least 95 of 100 predictions are right."),
        (
            predicted(0.5),
            "No: 50 % is below 80 %, from which on at least 95 of 100 predictions are right. Have it checked.",
        ),
        (predicted(1, unlike=True), "No: it looks like none of the classes."),
        (predicted(1, error="no pixels"), "This file cannot be read: no pixels."),
    ],
)
def test_a_prediction_is_believed_by_what_the_file_recommends(
    barred: OnnxClassifier, prediction: Prediction, sentence: str
) -> None:
    assert say_belief(barred, prediction) == sentence


def test_an_album_says_how_far_to_believe_its_file(
    barred: OnnxClassifier, model: OnnxClassifier, tmp_path: Path
) -> None:
    said = METADATA | {"accuracy": json.dumps({"mean": 0.714, "low": 0.52, "high": 0.84})}
    few = OnnxClassifier.load(write_model(tmp_path / "few.onnx", said), n_threads=1)
    assert "From a probability of 80 % on, at least 95 of 100 are right." in say_trust(barred)
    assert "about 71 are named rightly (52 to 84). Even those with a high probability may be wrong" in say_trust(few)
    for classifier in (barred, few, model):
        assert say_trust(classifier).endswith("leave it without a label.")


def test_a_file_that_recommends_nothing_vouches_for_nothing(model: OnnxClassifier) -> None:
    assert say_belief(model, predicted(1)).startswith("Not known: ")


def test_the_page_predicts_what_a_batch_does_to_the_last_bit(model: OnnxClassifier, pictures: Path) -> None:
    with open_source(str(pictures)) as source:
        (batch,) = predict_batches(model, [list(source.files())], Options(top_k=3))
    for prediction in batch:
        assert look_at(model, Path(prediction.file)).probabilities == dict(prediction.top)


def test_a_file_that_is_no_image_is_a_sentence(model: OnnxClassifier, two_broken: Path) -> None:
    assert look_at(model, two_broken / "green" / "half.png").belief.startswith("This file cannot be read: ")


def test_the_file_is_described_by_its_metadata(tmp_path: Path) -> None:
    accuracy = json.dumps({"mean": 0.9, "low": 0.8, "high": 0.95})
    said = METADATA | {"accuracy": accuracy, "weights": "timm", "weights_credit": ""}
    model = OnnxClassifier.load(write_model(tmp_path / "said.onnx", said), n_threads=1)
    rows = dict(describe_file(model))
    assert rows["classes"] == ", ".join(CLASS_NAMES)
    assert rows["right on new images like those it was made from"] == "90.0 % (80.0 to 95.0)"
    assert rows["pretrained weights"] == "timm"
    assert "credit" not in rows
    damaged = OnnxClassifier.load(write_model(tmp_path / "said.onnx", said | {"accuracy": "[1]"}), n_threads=1)
    assert "right on new images like those it was made from" not in dict(describe_file(damaged))


def page(*arguments: Path | str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "serving.page", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.onnx", "no model file at"), ("broken.onnx", "is not a readable ONNX model")]
)
def test_a_wrong_file_is_2_and_one_sentence(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    done = page(tmp_path / name)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert reason in sentence


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="expected no gradio here, and it is there")
def test_without_gradio_it_is_2_and_says_what_to_install(model_file: Path) -> None:
    done = page(model_file)
    advice = (
        "in a checkout: make page MODEL=classifier.onnx; elsewhere install 'transfer-lab[page]' in an environment of "
        "its own"
    )
    assert (done.returncode, done.stderr) == (2, f"error: expected the package gradio, got none; {advice}\n")


@contextmanager
def served(model: Path, folder: Path) -> Iterator[str]:
    """Serve the page of a model; yields its address."""
    port = free_port()
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder / "images")}
    command = [WITH_GRADIO, "-m", "serving.page", str(model), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"open http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.communicate(timeout=30)


@needs_chromium
@pytest.mark.skipif(not WITH_GRADIO, reason="expected gradio here or in .cache/page; make test-browser installs it")
@pytest.mark.parametrize("width", [1100, 375])
def test_a_browser_shows_the_prediction_and_asks_no_other_host(
    wary_file: Path, two_dark: Path, tmp_path: Path, width: int
) -> None:
    with served(wary_file, tmp_path) as address, Tab(tmp_path, width) as tab:
        tab.open(address)
        tab.wait_for("document.querySelector('input[type=file]') !== null")
        tab.give_file("input[type=file]", two_dark / "red" / "000.png")
        assert tab.wait_for(BELIEF).startswith("Not known: ")
        text = tab.evaluate("document.body.innerText")
        probability = look_at(OnnxClassifier.load(wary_file), two_dark / "red" / "000.png").probabilities["red"]
        assert f"red\n{100 * probability:.0f}%" in text
        assert "red, green, blue" in text
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        tab.wait_for("document.querySelector('[aria-label=Clear], [aria-label=\"Remove Image\"]') !== null")
        tab.evaluate("document.querySelector('[aria-label=Clear], [aria-label=\"Remove Image\"]').click()")
        tab.wait_for(
            "document.querySelector('input[type=file]') !== null && document.querySelector('textarea').value === ''"
        )
        tab.give_file("input[type=file]", two_dark / "blue" / "dark.png")
        assert tab.wait_for(BELIEF) == "No: it looks like none of the classes."
        assert [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert {url for url in tab.requests if url.startswith("http") and not url.startswith(address)} == set()


@pytest.mark.skipif(not WITH_GRADIO, reason="expected gradio here or in .cache/page; make test-browser installs it")
@pytest.mark.browser
def test_a_port_that_is_taken_is_2_and_one_sentence(model_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = page(model_file, "--port", str(port), python=WITH_GRADIO)
    assert done.returncode == 2
    assert f"error: port {port} of 127.0.0.1 cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


BELIEF = "document.querySelector('textarea').value"

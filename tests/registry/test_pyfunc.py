"""A registered version as MLflow users load it: images in any form, labels out; and over HTTP."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from PIL import Image

from registry.versions import resolve_onnx
from serving.batch import Options
from serving.job import write_predictions
from serving.model import OnnxClassifier
from serving.sources import open_source
from serving.tables import read_table
from tests.conftest import free_port, write_colour_images
from tests.registry.conftest import NAME, register_colours
from tests.serving.conftest import CLASS_NAMES, METADATA, write_model
from tl_core.images.decoding import decode_image

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures of each colour, the colour being the folder's name."""
    return sorted(write_colour_images(tmp_path / "pictures", n_per_class=2).rglob("*.png"))


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_LAB_IMAGE_ROOT", str(tmp_path))


@pytest.fixture
def loaded(version: ModelVersion) -> Any:
    """The version as `mlflow.pyfunc` loads it."""
    import mlflow

    return mlflow.pyfunc.load_model(f"models:/{NAME}@challenger")


def as_text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def as_data_uri(path: Path) -> str:
    return f"data:image/png;base64,{as_text(path)}"


@pytest.mark.parametrize("form", [Path.read_bytes, as_text, as_data_uri, str], ids=["bytes", "base64", "uri", "path"])
def test_an_image_is_taken_as_bytes_base64_or_path(form: Any, loaded: Any, pictures: list[Path]) -> None:
    answers = loaded.predict(pd.DataFrame({"image": [form(path) for path in pictures]}))
    assert list(answers["label"]) == [path.parent.name for path in pictures]


@pytest.mark.parametrize("container", [list, np.array, pd.Series, lambda images: pd.DataFrame({"x": images})])
def test_images_may_come_in_any_container(container: Any, loaded: Any, pictures: list[Path]) -> None:
    answers = loaded.predict(container([str(path) for path in pictures]))
    assert list(answers["label"]) == [path.parent.name for path in pictures]


def test_probabilities_are_those_of_the_file(loaded: Any, pictures: list[Path]) -> None:
    model = OnnxClassifier.load(resolve_onnx(f"models:/{NAME}@challenger"))
    expected = model.predict(np.stack([decode_image(path, model.image_size) for path in pictures]))
    answers = loaded.predict([str(path) for path in pictures])
    assert answers["probability"].tolist() == pytest.approx(expected.max(1).tolist(), abs=1e-6)
    for top, row in zip(answers["top"], expected, strict=True):
        assert [rank["probability"] for rank in top] == pytest.approx(sorted(row, reverse=True), abs=1e-6)


def test_a_file_without_threshold_marks_no_image(loaded: Any, pictures: list[Path]) -> None:
    assert loaded.predict([str(path) for path in pictures])["unlike"].tolist() == [None] * 6


def test_pictures_below_the_threshold_are_marked(
    store: str, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    register_colours(tmp_path, wary=True)
    Image.new("RGB", (20, 20), (10, 20, 60)).save(tmp_path / "dark.png")
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@challenger")
    answers = loaded.predict([str(tmp_path / "dark.png"), *map(str, pictures)])
    assert answers["unlike"].tolist() == [True] + [False] * 6
    assert answers["label"][0] == "blue"


@pytest.mark.parametrize(("top_k", "n_ranks"), [(1, 1), (2, 2), (99, 3)])
def test_the_number_of_ranks_may_be_chosen(top_k: int, n_ranks: int, loaded: Any, pictures: list[Path]) -> None:
    answers = loaded.predict([str(pictures[0])], params={"top_k": top_k})
    assert len(answers["top"][0]) == n_ranks


def test_more_images_than_a_batch_are_answered_in_order(loaded: Any, pictures: list[Path]) -> None:
    answers = loaded.predict([str(path) for path in pictures * 7])
    assert list(answers["label"]) == [path.parent.name for path in pictures] * 7


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            "no such file, and no base64",
            "neither base64 nor the path of an image below the folder that TRANSFER_LAB_IM",
        ),
        (base64.b64encode(b"no picture").decode(), "not a png, jpg, webp, bmp, tif, gif or avif image"),
        (b"no picture", "not a png, jpg, webp, bmp, tif, gif or avif image"),
        (b"", "not a png, jpg, webp, bmp, tif, gif or avif image"),
        ("", "not a png, jpg, webp, bmp, tif, gif or avif image"),
        (None, "expected bytes or a text, got NoneType"),
        (3.5, "expected bytes or a text, got float"),
        ("a\0b", "neither base64 nor the path"),
        ("ä" * 100_000, "neither base64 nor the path"),
    ],
)
def test_what_is_no_image_has_its_reason_and_the_others_their_answers(
    image: Any, reason: str, loaded: Any, pictures: list[Path]
) -> None:
    answers = loaded.predict(pd.DataFrame({"image": [pictures[0].read_bytes(), image, str(pictures[5])]}))
    assert list(answers["label"]) == [pictures[0].parent.name, "", pictures[5].parent.name]
    assert [error[: len(reason)] for error in answers["error"]] == ["", reason, ""]
    assert (answers["probability"][1], answers["top"][1]) == (None, [])
    assert answers["probability"][0] > 0.4
    assert len(answers["error"][1]) < 200
    assert list(loaded.predict(pd.DataFrame({"image": [image, image]}))["label"]) == ["", ""]


def in_lines(path: Path) -> str:
    return base64.encodebytes(path.read_bytes()).decode()


def url_safe(path: Path) -> str:
    return base64.urlsafe_b64encode(path.read_bytes()).decode()


def unpadded(path: Path) -> str:
    return as_text(path).rstrip("=")


def quoted_uri(path: Path) -> str:
    return f"data:image/png;base64,{quote(as_text(path), safe='')}"


@pytest.mark.parametrize("form", [in_lines, url_safe, unpadded, quoted_uri, lambda path: f"  {as_text(path)}\r\n"])
def test_base64_is_taken_as_people_produce_it(form: Any, loaded: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 40, (33, 35, 3), dtype=np.uint8) + np.array([0, 0, 200], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    assert {"+", "/"} <= set(as_text(tmp_path / "noise.png"))
    assert list(loaded.predict([form(tmp_path / "noise.png")])["label"]) == ["blue"]


def test_the_column_of_images_is_found_by_its_name(loaded: Any, pictures: list[Path]) -> None:
    names = [path.parent.name for path in pictures]
    frame = pd.DataFrame({"id": range(6), "image": [as_text(path) for path in pictures], "note": "x"})
    assert list(loaded.predict(frame)["label"]) == names
    assert list(loaded.predict({"id": list(range(6)), "image": list(frame["image"])})["label"]) == names
    with pytest.raises(MlflowException, match="expected a column image, got id, note") as raised:
        loaded.predict(frame[["id", "note"]])
    assert raised.value.get_http_status_code() == 400


def test_a_path_is_read_below_the_root_alone(
    loaded: Any, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.png"
    inside.mkdir()
    pictures[0].rename(outside)
    (inside / "link.png").symlink_to(outside)
    os.mkfifo(inside / "pipe.png")
    (inside / "empty.png").touch()
    pictures[5].rename(inside / "own.png")
    monkeypatch.setenv("TRANSFER_LAB_IMAGE_ROOT", str(inside))
    asked = [
        "own.png",
        str(inside / "own.png"),
        "../outside.png",
        str(outside),
        "link.png",
        "pipe.png",
        "empty.png",
        ".",
    ]
    answers = loaded.predict(asked)
    assert list(answers["label"]) == ["red", "red", "", "", "", "", "", ""]
    refused = set(answers["error"][2:])
    monkeypatch.setenv("TRANSFER_LAB_IMAGE_ROOT", "/")
    assert list(loaded.predict(["/proc/kmsg", str(outside)])["label"]) == ["", "blue"]
    monkeypatch.delenv("TRANSFER_LAB_IMAGE_ROOT")
    assert loaded.predict([str(inside / "own.png")])["error"][0].endswith(
        "TRANSFER_LAB_IMAGE_ROOT names, which is not set"
    )
    # Whether a file is there is not told either.
    assert refused == set(
        loaded.predict(["no such.png", pictures[4].read_bytes()])["error"][:1].str.replace(", which is not set", "")
    )


GUEST = """
import sys, json, mlflow, pathlib
import registry, serving, tl_core
assert registry.OURS and serving.OURS and tl_core.OURS
models = [mlflow.pyfunc.load_model(path) for path in sys.argv[1:3]]
image = pathlib.Path(sys.argv[3]).read_bytes()
print(json.dumps([model.predict([image])["probability"][0] for model in models]))
assert not [name for name in ("registry.pyfunc", "serving.model", "tl_core.images") if name in sys.modules]
"""


def test_two_releases_are_guests_in_an_application_with_packages_of_the_same_names(
    version: ModelVersion, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second release halves what it reads: each version has to answer with its own code."""
    import mlflow

    from registry import saving

    newer = tmp_path / "newer"
    for pattern in saving._CODE:
        for source in saving._ROOT.glob(pattern):
            target = newer / source.relative_to(saving._ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text())
    changed = newer / "registry" / "pyfunc.py"
    text = changed.read_text().replace("np.stack(readable)", "np.stack(readable) // 2")
    assert text != changed.read_text()
    changed.write_text(text)
    monkeypatch.setattr(saving, "_ROOT", newer)
    second = register_colours(tmp_path, accuracy="0.8")
    application = tmp_path / "application"
    for name in ("registry", "serving", "tl_core"):
        (application / name).mkdir(parents=True)
        (application / name / "__init__.py").write_text("OURS = True\n")
    folders = [mlflow.artifacts.download_artifacts(f"models:/{NAME}/{v.version}") for v in (version, second)]
    command = [sys.executable, "-c", GUEST, *folders, str(pictures[0])]
    found = subprocess.run(command, cwd=application, check=True, capture_output=True, text=True)
    one, two = json.loads(found.stdout)
    model = OnnxClassifier.load(resolve_onnx(f"models:/{NAME}/{version.version}"))
    pixels = decode_image(pictures[0], 16)[None]
    assert one == pytest.approx(float(model.predict(pixels).max()), abs=1e-6)
    assert two == pytest.approx(float(model.predict(pixels // 2).max()), abs=1e-6)
    assert one - two > 0.01


def test_the_raw_file_lies_at_its_place_as_it_was_exported(version: ModelVersion, tmp_path: Path) -> None:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version.version}"))
    exported = write_model(tmp_path / "again.onnx", METADATA)
    assert (folder / "data" / "classifier.onnx").read_bytes() == exported.read_bytes()


def test_nothing_is_pickled_and_torch_is_not_needed(version: ModelVersion) -> None:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version.version}"))
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    assert "torch" not in (folder / "requirements.txt").read_text()


def test_it_loads_as_a_graph_too(version: ModelVersion, pictures: list[Path]) -> None:
    import mlflow
    import onnxruntime

    graph = mlflow.onnx.load_model(f"models:/{NAME}/{version.version}")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"images": np.stack([decode_image(path, 16) for path in pictures])})
    assert [CLASS_NAMES[i] for i in probabilities.argmax(1)] == [path.parent.name for path in pictures]


def test_what_a_spark_udf_gives_and_takes_fits_the_signature(loaded: Any, pictures: list[Path]) -> None:
    # Spark hands over a frame of texts or bytes whose columns are numbers, and reads the answer by the signature.
    for form in (str, as_text, Path.read_bytes):
        answers = loaded.predict(pd.DataFrame({"0": pd.Series([form(path) for path in pictures])}))
        outputs = loaded.metadata.signature.outputs
        assert list(answers.columns) == outputs.input_names() == ["label", "probability", "unlike", "top", "error"]
        for row in answers.to_dict("records"):
            assert (type(row["label"]), type(row["probability"])) == (str, float)
            assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("result_type", [None, "string", "label string, probability double"])
def test_a_spark_udf_labels_a_column(
    result_type: str | None, version: ModelVersion, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed; needs Java too")
    import mlflow

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)  # Spark's workers would take the first python3 on the path
    local = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    with local.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate() as spark:
        kind = {} if result_type is None else {"result_type": result_type}
        udf = mlflow.pyfunc.spark_udf(spark, f"models:/{NAME}@challenger", env_manager="local", **kind)
        frame = spark.createDataFrame([(form(path),) for path in pictures for form in (str, as_text)], ["image"])
        answers = [row[0] for row in frame.select(udf("image")).collect()]
    labels = answers if result_type == "string" else [answer["label"] for answer in answers]
    assert labels == [path.parent.name for path in pictures for _ in range(2)]


@pytest.mark.timeout(240)
def test_it_predicts_from_mlflows_command_line(version: ModelVersion, pictures: list[Path], tmp_path: Path) -> None:
    pd.DataFrame({"image": [str(path) for path in pictures]}).to_csv(tmp_path / "images.csv", index=False)
    command = [Path(sys.executable).with_name("mlflow"), "models", "predict", "--env-manager", "local"]
    command += ["-m", f"models:/{NAME}@challenger", "-t", "csv", "-i", "images.csv", "-o", "answers.json"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    answers = json.loads((tmp_path / "answers.json").read_text())["predictions"]
    assert [answer["label"] for answer in answers] == [path.parent.name for path in pictures]


@pytest.fixture
def server(version: ModelVersion, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` of the version, from a folder where our code is not; yields its address."""
    port = free_port()
    mlflow_command = Path(sys.executable).with_name("mlflow")
    command = [mlflow_command, "models", "serve", "-m", f"models:/{NAME}@challenger"]
    command += ["--env-manager", "local", "--port", str(port)]
    environment = {**os.environ, "PATH": f"{mlflow_command.parent}:{os.environ['PATH']}"}
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while not answers_ping(address):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        log.close()


def answers_ping(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=5).ok
    except requests.ConnectionError:
        return False


def ask(address: str, body: bytes) -> tuple[int, Any]:
    """What curl would: post a body, return status and answer."""
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{address}/invocations", body, headers=headers, timeout=60)
    return answer.status_code, answer.json()


@pytest.mark.timeout(240)
def test_served_over_http_it_answers_refuses_and_loses_nothing(
    server: str, pictures: list[Path], tmp_path: Path
) -> None:
    # One server for all questions: it takes long to start.
    for body in (
        {"inputs": [as_text(path) for path in pictures]},
        {"dataframe_split": {"columns": ["image"], "data": [[as_text(path)] for path in pictures]}},
    ):
        status, answer = ask(server, json.dumps({**body, "params": {"top_k": 2}}).encode())
        assert status == 200
        assert [row["label"] for row in answer["predictions"]] == [path.parent.name for path in pictures]
        assert [len(row["top"]) for row in answer["predictions"]] == [2] * 6

    no_image = base64.b64encode(b"no picture").decode()
    body = {"dataframe_split": {"columns": ["id", "image"], "data": [[1, as_text(pictures[0])], [2, no_image]]}}
    status, answer = ask(server, json.dumps(body).encode())
    assert status == 200
    assert [row["label"] for row in answer["predictions"]] == [pictures[0].parent.name, ""]
    assert [row["error"] for row in answer["predictions"]] == ["", "not a png, jpg, webp, bmp, tif, gif or avif image"]
    assert answer["predictions"][1]["probability"] is None
    status, answer = ask(server, pictures[0].read_bytes())  # the bare file, and no JSON
    assert status == 400
    assert " " in answer["message"]

    photo = tmp_path / "photo.jpg"
    Image.open(pictures[0]).resize((90, 60)).save(photo)
    with open_source(str(photo)) as source:
        model = OnnxClassifier.load(resolve_onnx(f"models:/{NAME}@challenger"))
        write_predictions(model, source, tmp_path / "out.csv", Options())
    (predicted,) = read_table(tmp_path / "out.csv")
    status, answer = ask(server, json.dumps({"inputs": [as_text(photo)]}).encode())
    assert (status, answer["predictions"][0]["label"]) == (200, predicted.label)
    assert answer["predictions"][0]["probability"] == pytest.approx(predicted.top[0][1], abs=6e-5)

    def one(index: int) -> bool:
        path = pictures[index % 6]
        status, answer = ask(server, json.dumps({"inputs": [as_text(path)]}).encode())
        return status == 200 and answer["predictions"][0]["label"] == path.parent.name

    with ThreadPoolExecutor(200) as threads:
        assert sum(threads.map(one, range(200))) == 200

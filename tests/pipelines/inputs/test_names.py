"""Names of runs: data and weights, as a table of runs shows them."""

from __future__ import annotations

import pytest

from pipelines.inputs.names import run_name, short_data, short_model

RUN = "9ac97432e0f64b2b8e6e1c1f7a4f2d10"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("data/EuroSAT.zip", "EuroSAT"),
        ("my_folder/", "my_folder"),
        ("mini-imagenet/train.tar.gz", "train"),
        ("photos/labels.csv", "labels"),
        ("CUB_200.2011", "CUB_200.2011"),
        ("digits:target", "digits:target"),
        (".", "."),
        (".zip", ".zip"),
    ],
)
def test_data_is_named_by_the_end_of_its_path(spec: str, name: str) -> None:
    assert short_data(spec) == name


@pytest.mark.parametrize(
    ("weights", "start"),
    [
        (RUN, " from 9ac97432"),
        ("pixels", " from pixels"),
        ("random", " from random resnet34"),
        ("timm", " from timm resnet34"),
        ("timm:a1_in1k", " from timm:a1_in1k"),
        ("weights/mine.safetensors", " from mine.safetensors"),
        ("", ""),
    ],
)
def test_a_run_is_named_by_its_data_and_its_weights(weights: str, start: str) -> None:
    assert run_name("finetune", "EuroSAT.zip", weights, "resnet34") == f"finetune EuroSAT{start}"
    assert run_name("finetune", "EuroSAT.zip", weights, "resnet34", "5-shot") == f"finetune EuroSAT{start} 5-shot"


@pytest.mark.parametrize(
    ("model", "name"), [("models:/damage@champion", "damage@champion"), ("out/classifier.onnx", "classifier.onnx")]
)
def test_a_model_is_named_without_its_place(model: str, name: str) -> None:
    assert short_model(model) == name

"""Names of the artifacts, tags and metrics by which one run hands on to the next."""

from __future__ import annotations

CHOSEN_WEIGHTS = "chosen_weights"
"""Tag of a classify run: of the weights that were compared those that its classifier has."""
BACKBONE_ARTIFACT = "backbone"
RECIPE_ARTIFACT = "recipe.json"
CLASSIFIER_ARTIFACT = "classifier"
SAMPLES_ARTIFACT, SAMPLE_FILES_ARTIFACT = "samples.npz", "samples.zip"
LEARNED_ARTIFACT = "learned_from.txt"
"""Beginnings of the hashes of the files that a classifier was fitted to, as base64."""
N_SAMPLES = 66
"""Images kept beside a classifier, as files too, so that the export can be checked on them: two batches of 33."""
ONNX_ARTIFACT, INT8_ARTIFACT = "onnx/classifier.onnx", "onnx/classifier.int8.onnx"
LATENCY_METRIC, SIZE_METRIC = "latency_ms", "megabytes"
"""Of an export run: how long one image takes, and how large the file is."""

BASELINE_SIZE = 32
VERDICT, REPORTED_VERDICT = "verdict", "report_verdict"
"""Tags of a search: who wins, and how much the best one gains on the half that nothing was chosen on, in words."""

"""The words that hyper-parameters choose from."""

from __future__ import annotations

from typing import Literal

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["one_cycle", "cosine"]
StageSchedule = Literal["constant", "one_cycle", "cosine", "plateau"]
Features = Literal["last", "stages", "whitened"]
"""Features that a head sees: of the last stage, of the last four, or those whitened by the source's classes."""

TestViews = Literal["none", "flip", "dihedral"]
Temperature = Literal["none", "cv"]
GroupedBy = Literal["auto", "folder"]
Unreadable = Literal["refuse", "skip"]
Part = Literal["report", "search", "all"]
ChosenPart = Literal["auto", "report", "search", "all"]
Priors = Literal["balanced", "data"]
"""Class shares that a fit assumes: all equal, or those of the images given."""

SplitRule = Literal["auto", "layout", "random"]

EngineName = Literal["local", "ray", "dask"]

MaxLr = float | Literal["auto"]
"""A peak learning rate, or the one that a learning-rate range test suggests."""

LeastProbability = float | Literal["recommended"]
"""A least probability, or the one that a classifier's file recommends."""

AUGMENT_OPS = ("flip", "dihedral", "crop", "colour")

"""Every knob of the work, as frozen dataclasses: the command line, the logged params and what a trial suggests.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from tl_core.errors import InputError

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["one_cycle", "cosine"]
StageSchedule = Literal["constant", "one_cycle", "cosine", "plateau"]
Head = Literal["linear", "cosine"]
HeadStart = Literal["prototypes", "probe"]
Features = Literal["last", "stages"]
Trained = Literal["all", "norm"]
TestViews = Literal["none", "flip", "dihedral"]
Temperature = Literal["none", "cv"]
Objective = Literal["cross_entropy", "pseudo_episodes"]
Transductive = Literal["none", "label_propagation", "query_statistics"]
Unreadable = Literal["refuse", "skip"]
Part = Literal["report", "search", "all"]
ChosenPart = Literal["auto", "report", "search", "all"]
SplitRule = Literal["auto", "layout", "random"]

EngineName = Literal["local", "ray", "dask"]

MaxLr = float | Literal["auto"]
"""A peak learning rate, or the one that a learning-rate range test suggests."""

AUGMENT_OPS = ("flip", "dihedral", "crop", "colour")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `InputError` unless low <= value <= high; NaN lies in no range."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{name} is {value}; allowed is a number from {low:g} to {high:g}")


def check_count(name: str, value: int, low: int, high: int) -> None:
    """Raise `InputError` unless value is a whole number from low to high."""
    check_range(name, value, low, high)
    if not isinstance(value, int):
        raise InputError(f"{name} is {value!r}; allowed is a whole number from {low} to {high}")


def check_max_lr(value: MaxLr) -> None:
    """Raise `InputError` unless value is a learning rate or `auto`."""
    if value == "auto":
        return
    if not isinstance(value, float | int):
        raise InputError(f"max_lr is {value!r}; allowed is auto, or a number from 1e-09 to 100")
    check_range("max_lr", value, 1e-9, 100)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `InputError` unless value is one of the choices."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}; allowed is {', '.join(choices)}")


def parse_recipe(text: str) -> FinetuneRecipe:
    """Read back a recipe from JSON, checking every field.

    Raises:
        InputError: not JSON, or not a recipe.
    """
    try:
        recipe = FinetuneRecipe(**json.loads(text))
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"the recipe cannot be read ({error})") from error
    # A field that is missing would silently take today's default.
    missing = {field.name for field in fields(FinetuneRecipe)} - set(json.loads(text))
    if missing:
        raise InputError(f"the recipe does not say {', '.join(sorted(missing))}; it is of an older version")
    return recipe


def parse_augment(augment: str) -> tuple[str, ...]:
    """Split `"crop+flip"` into its operations; `"none"` is the empty tuple.

    Raises:
        InputError: an operation that is not in `AUGMENT_OPS`.
    """
    ops = () if augment == "none" else tuple(str(augment).split("+"))
    for op in ops:
        if op not in AUGMENT_OPS:
            raise InputError(f"augment is {augment!r}; allowed is none, or {', '.join(AUGMENT_OPS)} joined by +")
    return ops


@dataclass(frozen=True)
class EpisodeShape:
    """How large one episode is; 0 leaves a number to what the target can give."""

    n_way: int = 5
    """Classes in an episode; 0 takes all of the target's."""
    n_shot: int = 5
    """Support (training) images per class; 0 takes 5, or half of what a small class has."""
    n_query: int = 15
    """Query (test) images per class; 0 takes 15, or what a small class has left."""

    def __post_init__(self) -> None:
        check_range("n_way", self.n_way, 0, 10_000)
        if self.n_way == 1:
            raise InputError("n_way is 1; allowed is 0 (all classes), or a number from 2 to 10000")
        check_range("n_shot", self.n_shot, 0, 100_000)
        check_range("n_query", self.n_query, 0, 100_000)


OPEN_SHAPE = EpisodeShape(0, 0, 0)
"""All is left to the target."""


@dataclass(frozen=True)
class Engine:
    """Who does the work that can be shared out; the results are the same."""

    engine: EngineName = "local"
    """Processes of this machine (local), or the workers of a cluster (ray, dask)."""
    address: str = ""
    """Where the cluster is, such as 10.0.0.5:6379 (ray) or tcp://10.0.0.5:8786 (dask); empty starts one here."""

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, get_args(EngineName))
        if self.engine == "local" and self.address:
            raise InputError(f"address is {self.address!r}, but engine is local; give engine=ray or engine=dask")


LOCAL = Engine()


@dataclass(frozen=True)
class FinetuneRecipe:
    """How a pretrained backbone is fitted to a few labelled images."""

    freeze_depth: float = 1.0
    """Fraction of the backbone's depth that stays frozen: 0 is full fine-tuning, 1 is linear probing."""
    max_lr: MaxLr = 1e-2
    """Peak of the one-cycle learning rate; auto takes what a range test on support images suggests."""
    steps: int = 40
    """Optimiser steps; each sees every support image once, in one of its views. A linear head on a backbone that is
    frozen as a whole takes none: its start is the answer."""
    augment: str = "none"
    """Views of the support images: none, or flip, dihedral, crop, colour joined by +."""
    n_views: int = 8
    """Views drawn per support image when crop or colour make them random."""
    head: Head = "linear"
    """Classifier on the features."""
    head_start: HeadStart = "probe"
    """What a linear head starts from: class prototypes, or logistic regression (probe). Cosine: prototypes."""
    l2: float = 3e-3
    """Penalty of that logistic regression, on features of root mean square length 1."""
    objective: Objective = "cross_entropy"
    """What the unfrozen part is trained by: the head's cross-entropy on views of the support images, or
    pseudo_episodes, in which prototypes of the images judge their views, and the head is fitted afterwards."""
    trained: Trained = "all"
    """Which parameters of the unfrozen part are trained: all, or those of normalisation layers alone."""
    optimizer: Optimizer = "adamw"
    """Optimiser of the unfrozen part and the head."""
    weight_decay: float = 1e-2
    """Weight decay."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    test_views: TestViews = "none"
    """Views of each new image over which probabilities are averaged: itself, flip, or dihedral (8)."""
    temperature: Temperature = "none"
    """Whether the logits are divided by a temperature that cross-validation inside the support finds (cv), so that
    probabilities can be believed; a head that is trained is then trained once more for each of up to 5 folds."""
    transductive: Transductive = "none"
    """Whether queries are judged together and not one by one, which makes results of another column: by
    label_propagation, or with the unfrozen batch norms' statistics taken from them (query_statistics)."""
    precision: Precision = "float32"
    """In which the unfrozen part is trained: float32, bfloat16 autocast, or auto."""

    def __post_init__(self) -> None:
        check_range("freeze_depth", self.freeze_depth, 0, 1)
        check_max_lr(self.max_lr)
        check_count("steps", self.steps, 0, 1_000_000)
        check_count("n_views", self.n_views, 1, 1_000)
        check_choice("head", self.head, get_args(Head))
        check_choice("head_start", self.head_start, get_args(HeadStart))
        check_range("l2", self.l2, 1e-9, 1e9)
        check_choice("objective", self.objective, get_args(Objective))
        check_choice("trained", self.trained, get_args(Trained))
        check_choice("test_views", self.test_views, get_args(TestViews))
        check_choice("temperature", self.temperature, get_args(Temperature))
        check_choice("transductive", self.transductive, get_args(Transductive))
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        parse_augment(self.augment)


@dataclass(frozen=True)
class PretrainRecipe:
    """How a backbone is trained on the source classes."""

    epochs: int = 10
    """Passes over the training part."""
    batch_size: int = 128
    """Images per step."""
    max_lr: MaxLr = 0.1
    """Peak of the learning rate; auto takes what a range test on the first batches suggests."""
    optimizer: Optimizer = "sgd"
    """Optimiser; sgd uses Nesterov momentum 0.9."""
    weight_decay: float = 5e-4
    """Weight decay, on weights with two or more dimensions only."""
    schedule: Schedule = "one_cycle"
    """How the learning rate moves: one cycle, or a short warm-up and a cosine."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy."""
    augment: str = "crop+flip"
    """Random views: none, or flip, dihedral, crop, colour joined by +."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is none."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is none. With mixup too, each batch draws one of the two."""
    rotation: float = 0.0
    """Weight of a second task, to tell by which quarter turn each image was turned; 0 is none."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then validated and kept; 0 is none."""
    start_size: int = 0
    """Size of the first epoch's views; it grows to the full size over the first two thirds. 0 is the full size."""
    view_size: int = 0
    """Full size of the training views, at most image_size, which 0 stands for."""
    precision: Precision = "auto"
    """bfloat16 autocast, float32, or auto: bfloat16 where the device is fast at training the network in it."""
    compile: bool = False
    """Whether to compile the model (torch.compile; needs a C++ compiler)."""

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, 100_000)
        check_range("batch_size", self.batch_size, 2, 1_000_000)
        check_max_lr(self.max_lr)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        check_range("mixup", self.mixup, 0, 100)
        check_range("cutmix", self.cutmix, 0, 100)
        check_range("rotation", self.rotation, 0, 100)
        check_range("ema", self.ema, 0, 0.999999)
        check_count("start_size", self.start_size, 0, 10_000)
        check_count("view_size", self.view_size, 0, 10_000)
        parse_augment(self.augment)

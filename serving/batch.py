"""Many files through one model: each thread decodes a batch and runs it, so that every core is always busy."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.model import OnnxClassifier
from serving.sources import ImageFile
from serving.tables import Prediction
from tl_core.images.decoding import UnreadableImageError, decode_image

DEFAULT_BATCH_SIZE = 16


@dataclass(frozen=True)
class Options:
    """Options of the predictions.

    Attributes:
        top_k: classes to list per image.
        min_probability: below this probability of the best class, no label is given.
        batch_size: images per call of the model.
        workers: batches in work at the same time; 0 is one per core that this process may use.
    """

    top_k: int = 5
    min_probability: float = 0.0
    batch_size: int = DEFAULT_BATCH_SIZE
    workers: int = 0

    @property
    def abstains(self) -> bool:
        """Return whether an image may get no label."""
        return self.min_probability > 0


def predict_batches(
    model: OnnxClassifier, batches: Iterable[Sequence[ImageFile]], options: Options
) -> Iterator[list[Prediction]]:
    """Predict batches of files in their order; unreadable files come with their reason.

    The model should be loaded with `n_threads=1`: several batches at once, each on one thread, leave no core waiting
    for another, and decoding needs no threads of its own.
    """
    workers = options.workers or usable_cores()
    waiting: deque[Future[list[Prediction]]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for batch in batches:
                waiting.append(threads.submit(_predict_batch, model, batch, options))
                if len(waiting) > 2 * workers:  # enough to keep them busy, few enough to keep memory flat
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Decoded = NDArray[np.uint8] | str  # pixels, or the reason why there are none


def _predict_batch(model: OnnxClassifier, files: Sequence[ImageFile], options: Options) -> list[Prediction]:
    decoded = [_decode(model, file) for file in files]
    images = [array for array in decoded if not isinstance(array, str)]
    answers = iter(_run(model, np.stack(images)) if images else ())
    return [
        Prediction(file.name, "", (), outcome)
        if isinstance(outcome, str)
        else _answer(file.name, *next(answers), model.class_names, options)
        for file, outcome in zip(files, decoded, strict=True)
    ]


def _decode(model: OnnxClassifier, file: ImageFile) -> Decoded:
    try:
        return decode_image(file.read(), model.image_size, model.resize_rule)
    except UnreadableImageError as error:
        return str(error)
    except (OSError, ValueError) as error:  # the latter for names that no file can have
        return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _run(model: OnnxClassifier, images: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.float32], bool | None]]:
    probabilities, similarities = model.predict_with_similarity(images)
    return zip(probabilities, model.look_unlike(similarities, len(images)), strict=True)


def _answer(
    file: str, probabilities: NDArray[np.float32], unlike: bool | None, names: Sequence[str], options: Options
) -> Prediction:
    top = rank_classes(probabilities, names, options.top_k)
    return Prediction(file, top[0][0] if top[0][1] >= options.min_probability else "", top, unlike=unlike)


def rank_classes(probabilities: NDArray[np.float32], names: Sequence[str], top_k: int) -> tuple[tuple[str, float], ...]:
    """The `top_k` most probable classes with their probabilities, most probable first."""
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple((names[i], float(probabilities[i])) for i in order)

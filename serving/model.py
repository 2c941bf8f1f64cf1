"""An exported classifier, run by onnxruntime. Knows only what the file says of itself."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tl_core.errors import InputError
from tl_core.images.decoding import RESIZE_RULES, ResizeRule

_SIMILARITY = ("similarity", "tensor(float)", 1)
_METADATA = ("class_names", "image_size", "resize_rule")
HASH_BYTES = 8
"""Bytes of a file's SHA-256 by which a classifier knows it again."""


@dataclass(frozen=True)
class OnnxClassifier:
    """A loaded file: call `predict` with decoded images.

    Attributes:
        fingerprint: SHA-256 of the file.
        has_similarity: whether the file has a second output, the similarity to the nearest class mean.
        unlike_below: similarity below which an image looks like none of the classes; None where the file lacks either.
    """

    session: Any
    fingerprint: str
    class_names: tuple[str, ...]
    image_size: int
    resize_rule: ResizeRule
    has_similarity: bool = False
    unlike_below: float | None = None

    @classmethod
    def load(cls, path: Path, n_threads: int = 0) -> OnnxClassifier:
        """Load a file that `export` wrote; `n_threads` 0 uses every core.

        Raises:
            InputError: missing, damaged, or without the metadata that `export` writes.
        """
        if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, false for a name that is too long
            raise InputError(f"no model file at {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            # In a damaged file names and metadata may be no text, which is noticed when they are read.
            metadata = session.get_modelmeta().custom_metadata_map
            given, (answer, *others) = session.get_inputs()[0], session.get_outputs()
            name, kind = given.name, given.type
            graph = [given.shape[1:], answer.shape[-1] if answer.shape else None]
            second = [(other.name, other.type, len(other.shape)) for other in others]
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise InputError(f"{path} is not a readable ONNX model ({_first_line(error)})") from error
        missing = [key for key in _METADATA if key not in metadata]
        if missing:
            raise InputError(f"{path} was not written by this project: its metadata lacks {', '.join(missing)}")
        class_names, image_size, rule = _parse(path, metadata)
        expected = [[image_size, image_size, 3], len(class_names)]
        if (name, kind) != ("images", "tensor(uint8)"):
            raise InputError(f"{path}: expected an input tensor(uint8) 'images', got {kind} {name!r}")
        if graph != expected:
            raise InputError(f"{path} has damaged metadata (they say {expected}, the graph says {graph})")
        if second not in ([], [_SIMILARITY]):
            raise InputError(f"{path}: expected as second output none or {_SIMILARITY}, got {second}")
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        below = _parse_threshold(path, metadata) if second else None
        return cls(session, fingerprint, class_names, image_size, rule, bool(second), below)

    @property
    def recommended_probability(self) -> float:
        """Probability from which on predictions are to be believed, as the file recommends it.

        Raises:
            InputError: the file recommends none, or its metadata is damaged.
        """
        text = self.metadata.get("believe_from")
        if text is None:
            raise InputError(
                "this file recommends no least probability, as its images were too few to know one; leave "
                "min_probability out, or give a number from 0 to 1"
            )
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not 0 <= found <= 1:
            raise InputError(f"damaged metadata: expected believe_from from 0 to 1, got {text!r}")
        return found

    @cached_property
    def learned_from(self) -> frozenset[bytes]:
        """Beginnings of the SHA-256 of the files that the classifier was fitted to; empty if it does not say."""
        try:
            hashes = base64.b64decode(self.metadata.get("learned_from", ""), validate=True)
        except ValueError:
            return frozenset()
        return frozenset(hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES))

    def has_learned_from(self, content: bytes) -> bool:
        """Return whether a file is one of those that the classifier was fitted to, as far as it says."""
        return self.has_learned_digest(hashlib.sha256(content).digest())

    def has_learned_digest(self, digest: bytes) -> bool:
        """Return the same of a file's SHA-256."""
        return digest[:HASH_BYTES] in self.learned_from

    @property
    def metadata(self) -> dict[str, str]:
        """All that the file says of itself."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of decoded images.

        Args:
            images: uint8, shape (n, image_size, image_size, 3).

        Returns:
            float32, shape (n, n_classes); rows sum to 1.

        Raises:
            InputError: another dtype or shape.
        """
        return self.predict_with_similarity(images)[0]

    def predict_with_similarity(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Probabilities of decoded images, and the cosine of their features to the nearest class mean.

        Args:
            images: uint8, shape (n, image_size, image_size, 3).

        Returns:
            float32 (n, n_classes), and float32 (n,) or None where the file has no such output.

        Raises:
            InputError: another dtype or shape.
        """
        expected = (self.image_size, self.image_size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(f"expected images as uint8 (n, {str(expected)[1:]}, got {images.dtype} {images.shape}")
        if len(images) == 0:
            nothing = np.zeros((0, len(self.class_names)), dtype=np.float32)
            return nothing, nothing[:, 0] if self.has_similarity else None
        found = [np.asarray(output, dtype=np.float32) for output in self.session.run(None, {"images": images})]
        return found[0], found[1] if self.has_similarity else None

    def look_unlike(self, similarities: NDArray[np.float32] | None, n_images: int) -> list[bool | None]:
        """Say of each image whether it looks like none of the classes: None where the file has no threshold.

        A similarity that is no number is below every threshold.
        """
        if similarities is None or self.unlike_below is None:
            return [None] * n_images
        return [not value >= self.unlike_below for value in similarities.tolist()]


def _parse(path: Path, metadata: dict[str, str]) -> tuple[tuple[str, ...], int, ResizeRule]:
    try:
        names = json.loads(metadata["class_names"])
        image_size = int(metadata["image_size"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} has damaged metadata ({error})") from error
    if not isinstance(names, list):
        raise InputError(f"{path} has damaged metadata (its class_names are no list)")
    rule = metadata["resize_rule"]
    if rule not in RESIZE_RULES:
        raise InputError(f"{path}: expected a resize rule of {', '.join(RESIZE_RULES)}, got {rule!r}")
    return tuple(str(name) for name in names), image_size, rule


def _parse_threshold(path: Path, metadata: dict[str, str]) -> float | None:
    if "unlike_below" not in metadata:
        return None
    text = metadata["unlike_below"]
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not -1 <= threshold <= 1:
        raise InputError(f"{path} has damaged metadata (expected unlike_below from -1 to 1, got {text!r})")
    return threshold


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]

"""How near does batch inference come to its parts? All contenders side by side, in one process, taking turns.

    make bench-inference          (made pictures, random weights, 64 px; SIZE=224 for another size)

The bound is the sum of two times, each alone on all cores: decoding the files, and running the model on arrays that
are in memory (in the faster of two ways: one batch on all cores, or one batch per core).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from serving.batch import Options, usable_cores
from serving.job import write_predictions
from serving.model import OnnxClassifier
from serving.sources import open_source
from tl_core.export.int8 import equal_answers, quantise_onnx
from tl_core.export.onnx_file import export_onnx
from tl_core.heads.classifier import Classifier
from tl_core.images.decoding import decode_image
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features

BATCH = 16
N_CLASSES = 10
TURNS = 4  # the files are cut into so many parts, and the contenders take turns on them


def main() -> None:
    """Measure and print the table; its last line is the ratio of the bound's time to ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--n-images", type=int, default=2000)
    parser.add_argument("--images", type=Path, help="folder of image files; by default pictures are made")
    parser.add_argument("--backbone", default="resnet18")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        spec = BackboneSpec(options.backbone, options.image_size)
        classifier = untrained(spec)
        files = _files(options.images, options.n_images, options.image_size, scratch)
        path = export_untrained(spec, scratch)
        int8 = scratch / "int8.onnx"
        quantise_onnx(path, _decode_all(files[:64], options.image_size), int8)
        seconds = _measure(_contenders(classifier, path, int8, options.image_size), files)
        _report(seconds, files, spec)
        print(f"int8 and float32 give the same class: {_agreement(path, int8, files, options.image_size):.1%}")
        print(f"start to first result: {_start(path, files[0], scratch):.2f} s")
    print(f"ratio: {_bound(seconds) / seconds['ours: files to table']:.3f}")


Contender = Callable[[Sequence[Path]], float]  # seconds for these files


def _contenders(classifier: Classifier, path: Path, int8: Path, image_size: int) -> dict[str, Contender]:
    whole, single = OnnxClassifier.load(path), OnnxClassifier.load(path, n_threads=1)
    whole8, single8 = OnnxClassifier.load(int8), OnnxClassifier.load(int8, n_threads=1)

    def timed(work: Callable[[NDArray[np.uint8]], object]) -> Contender:
        def run(files: Sequence[Path]) -> float:
            images = _decode_all(files, image_size)
            return _seconds(lambda: work(images))

        return run

    return {
        "decoding alone": lambda files: _seconds(lambda: _decode_all(files, image_size)),
        "model alone, one batch on all cores": timed(lambda images: _one_after_another(whole, images)),
        "model alone, one batch per core": timed(lambda images: _at_once(single, images)),
        "ours: files to table": lambda files: _ours(single, files),
        "torch eager + DataLoader": lambda files: _torch(classifier, files, image_size),
        "int8 alone, one batch on all cores": timed(lambda images: _one_after_another(whole8, images)),
        "int8 alone, one batch per core": timed(lambda images: _at_once(single8, images)),
    }


def _measure(contenders: dict[str, Contender], files: Sequence[Path]) -> Counter[str]:
    seconds = Counter[str]()
    for run in contenders.values():
        run(files[: 2 * BATCH])  # warm up
    part = len(files) // TURNS
    for turn in range(TURNS):
        for name, run in contenders.items():
            seconds[name] += run(files[turn * part : (turn + 1) * part])
    return seconds


def _bound(seconds: Counter[str]) -> float:
    return seconds["decoding alone"] + _fastest(seconds, "model alone")


def _fastest(seconds: Counter[str], kind: str) -> float:
    return min(value for name, value in seconds.items() if name.startswith(kind))


def _report(seconds: Counter[str], files: Sequence[Path], spec: BackboneSpec) -> None:
    print(
        f"{spec.architecture}, {spec.image_size} px, {len(files):,} files, batches of {BATCH}, {usable_cores()} cores"
    )
    for name, value in seconds.items():
        print(f"{name:40s} {len(files) / value:8.0f} images/s")
    print(f"{'bound: decoding + model':40s} {len(files) / _bound(seconds):8.0f} images/s")
    print(f"ours over torch: {seconds['torch eager + DataLoader'] / seconds['ours: files to table']:.2f}")
    print(f"int8 over float32, model alone: {_fastest(seconds, 'model alone') / _fastest(seconds, 'int8 alone'):.2f}")


def untrained(spec: BackboneSpec) -> Classifier:
    """A network with random weights: what it costs does not depend on what it knows."""
    torch.manual_seed(0)
    backbone = build_backbone(spec, seed=0)
    return Classifier(spec, backbone, nn.Linear(n_features(backbone, spec), N_CLASSES)).eval()


def export_untrained(spec: BackboneSpec, folder: Path) -> Path:
    """Write such a network as a file that serving takes."""
    names = json.dumps([f"class {index}" for index in range(N_CLASSES)])
    metadata = {"class_names": names, "image_size": str(spec.image_size), "resize_rule": "crop"}
    export_onnx(untrained(spec), spec.image_size, metadata, folder / "model.onnx")
    return folder / "model.onnx"


def _files(given: Path | None, n_images: int, image_size: int, scratch: Path) -> list[Path]:
    if given is not None:
        with open_source(str(given)) as source:
            return [Path(file.name) for file in source.files()][:n_images]
    # As photos that were shrunk for this: a little larger than the input.
    return sorted(make_pictures(scratch / "pictures", n_images, image_size * 8 // 7).iterdir())


def make_pictures(folder: Path, n_images: int, side: int) -> Path:
    """Write JPEG files of smooth random colours, square, of this side in pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(n_images):
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index:05d}.jpg", quality=90)
    return folder


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _decode_all(files: Sequence[Path], image_size: int) -> NDArray[np.uint8]:
    with ThreadPoolExecutor(usable_cores()) as threads:
        return np.stack(list(threads.map(lambda file: decode_image(file, image_size), files)))


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def _one_after_another(model: OnnxClassifier, images: NDArray[np.uint8]) -> None:
    for batch in _batches(images):
        model.predict(batch)


def _at_once(model: OnnxClassifier, images: NDArray[np.uint8]) -> None:
    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(model.predict, _batches(images)))


def _ours(model: OnnxClassifier, files: Sequence[Path]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "files.csv")
        table.write_text("\n".join(["path", *map(str, files)]))
        started = time.perf_counter()
        with open_source(str(table)) as source:
            write_predictions(model, source, Path(folder, "out.csv"), Options(batch_size=BATCH))
        return time.perf_counter() - started


class _Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """What a script without us would have: the same decoding, one file at a time."""

    def __init__(self, files: Sequence[Path], image_size: int) -> None:
        self._files, self._image_size = files, image_size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(decode_image(self._files[index], self._image_size).copy())


def _torch(classifier: Classifier, files: Sequence[Path], image_size: int) -> float:
    started = time.perf_counter()
    loader = torch.utils.data.DataLoader(_Pictures(files, image_size), BATCH, num_workers=usable_cores())
    with torch.inference_mode():
        for batch in loader:
            torch.softmax(classifier(batch), dim=1).topk(5)
    return time.perf_counter() - started


def _agreement(path: Path, int8: Path, files: Sequence[Path], image_size: int) -> float:
    return equal_answers(path, int8, _decode_all(files[-500:], image_size))


def _start(path: Path, file: Path, scratch: Path) -> float:
    command = [sys.executable, "-m", "serving", str(path), str(file), str(scratch / "first.csv")]
    return _seconds(lambda: subprocess.run(command, check=True, capture_output=True))


if __name__ == "__main__":
    main()

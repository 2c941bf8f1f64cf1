"""Try a classifier in the browser: `python -m serving.page classifier.onnx`.

Drop or photograph an image: the page shows the probabilities, whether to believe the prediction, and what the file says
of itself. It listens on this machine alone, keeps no image and tells nobody anything. Needs Gradio (the extra `page`)
beside onnxruntime, numpy and Pillow. Exit code 2 if the input is at fault.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.batch import Options, predict_batches
from serving.model import OnnxClassifier
from serving.sources import ImageFile
from serving.trust import say_accuracy, say_belief
from tl_core.errors import InputError
from tl_core.images.files import read_image_file

if TYPE_CHECKING:
    from gradio import Blocks

_MOST_BARS = 10
_SECONDS_KEPT = 600
"""Seconds after which an image that was looked at is deleted, as all are when the page is closed."""
_SAID = {
    "backbone": "network",
    "weights": "pretrained weights",
    "weights_credit": "credit",
    "image_size": "image side in pixels",
    "believe_from": "probability from which on it may be believed",
    "unlike_below": "similarity below which an image looks like none of the classes",
    "fit_run": "run that made it",
    "target_fingerprint": "fingerprint of the images it was made from",
    "version": "version of Transfer Lab",
}
"""Metadata that a reader may want to know, and what it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line until it is interrupted; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        page = build_page(OnnxClassifier.load(given.model, n_threads=1), given.model.name)
        _open_page(page, given.host, given.port)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.page", description="Try a classifier in the browser.")
    parser.add_argument("model", type=Path, help="an .onnx file that `export` wrote")
    parser.add_argument("--port", type=int, default=7860, help="port of this machine to listen on")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine see it then"
    )
    return parser


@dataclass(frozen=True)
class Seen:
    """An image with its probabilities, the most probable class first, and whether to believe it."""

    probabilities: dict[str, float]
    belief: str


def look_at(model: OnnxClassifier, image: Path) -> Seen:
    """Predict one image exactly as `python -m serving` does."""
    file = ImageFile(image.name, lambda: "", partial(read_image_file, image))
    ((prediction,),) = predict_batches(model, [[file]], Options(top_k=len(model.class_names), workers=1))
    return Seen(dict(prediction.top), say_belief(model, prediction))


def describe_file(model: OnnxClassifier) -> list[list[str]]:
    """Rows of what a file says of itself: its classes, how often it is right, and where it comes from."""
    said = model.metadata
    rows = [["classes", ", ".join(model.class_names)]]
    if accuracy := say_accuracy(model):
        rows.append(["right on new images like those it was made from", accuracy])
    rows += [[words, said[name]] for name, words in _SAID.items() if said.get(name)]
    return [*rows, ["fingerprint of this file", model.fingerprint]]


def build_page(model: OnnxClassifier, name: str) -> Blocks:
    """Build the page of a file that is called so.

    Raises:
        InputError: Gradio is not installed.
    """
    gr = _import_gradio()
    with gr.Blocks(analytics_enabled=False, title=name, delete_cache=(_SECONDS_KEPT, _SECONDS_KEPT)) as page:
        gr.Markdown("# What does this image show?")
        with gr.Row():
            # As a path and in its own mode: the very file is decoded, as `python -m serving` decodes it.
            sources = ["upload", "webcam", "clipboard"]
            image = gr.Image(type="filepath", image_mode=None, sources=sources, label="Image", height=320)
            with gr.Column():
                probabilities = gr.Label(num_top_classes=_MOST_BARS, label="Probabilities")
                belief = gr.Textbox(label="May I believe it?", interactive=False, lines=4)
        gr.HTML(_as_html([["What the file says of itself", name], *describe_file(model)]))
        image.change(partial(_show, model), image, [probabilities, belief], api_name="look")
    return page


def _as_html(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words below each other: a class may be called anything and be of any length."""
    told = "".join(f"<dt><b>{escape(words)}</b></dt><dd>{escape(value)}</dd>" for words, value in rows)
    return f'<dl style="overflow-wrap: anywhere">{told}</dl>'


def _show(model: OnnxClassifier, image: str | None) -> tuple[dict[str, float] | None, str]:
    if image is None:
        return None, ""
    seen = look_at(model, Path(image))
    return seen.probabilities or None, seen.belief


def _import_gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise InputError(
            "expected the package gradio, got none; in a checkout: make page MODEL=classifier.onnx; elsewhere "
            "install 'transfer-lab[page]' in an environment of its own"
        ) from error
    return gradio


def _open_page(page: Blocks, host: str, port: int) -> None:
    import gradio as gr

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end at which the images are deleted, too
    system = ["system-ui", "sans-serif"]  # fonts that are there, and not those of another host
    theme = gr.themes.Default(font=system, font_mono=["monospace"])
    print(f"open http://{host}:{port} (Ctrl+C ends it)", flush=True)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            show_error=True,
            quiet=True,
            footer_links=[],
            theme=theme,
        )
    except OSError as error:
        raise InputError(f"port {port} of {host} cannot be opened ({error}); try --port {port + 1}") from error


if __name__ == "__main__":
    sys.exit(main())

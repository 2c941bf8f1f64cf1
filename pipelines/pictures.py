"""Pictures of predictions: each image beside its probabilities, and a sheet of the most confident mistakes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serving.tables import Prediction
from tl_core.errors import InputError
from tl_core.preprocess import UnreadableImageError, decode_image

mpl.use("agg")

MAX_PICTURES = 100
"""Images of which a picture of their own is drawn, the first ones: more are not looked at one by one."""

SHEET = "mistakes.png"
_SHEET_COLUMNS, _SHEET_ROWS = 6, 4
_SIDE = 256  # pixels of an image as it is drawn
_BLUE, _GREY = "#0072b2", "#bbbbbb"
_RIGHT, _WRONG = "#009e73", "#d55e00"


def read_predictions(table: Path) -> Iterator[Prediction]:
    """What a table of predictions says, row by row."""
    read: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".parquet": pd.read_parquet,
    }
    frame = read[table.suffix.lower()](table)
    n_ranks = sum(name.startswith("label_") for name in frame.columns)
    for row in frame.to_dict("records"):
        ranks = [(row[f"label_{rank}"], row[f"probability_{rank}"]) for rank in range(1, n_ranks + 1)]
        yield Prediction(row["file"], row["label"], tuple((n, float(p)) for n, p in ranks if n), row["error"])


def _read_csv(table: Path) -> pd.DataFrame:
    # A class may be called "nan", or "1".
    names = pd.read_csv(table, nrows=0).columns
    texts = {name: str for name in names if "probability" not in name}
    return pd.read_csv(table, dtype=texts, keep_default_na=False)


def _read_jsonl(table: Path) -> pd.DataFrame:
    return pd.read_json(table, lines=True, dtype=False)


class Album:
    """Draws predictions; an image's label is known where its folder is named like a class."""

    def __init__(self, folder: Path) -> None:
        """The folder is made, and must be writable."""
        self._folder = folder
        self._class_names: frozenset[str] = frozenset()
        self._n_drawn = 0
        self._n_labelled = 0
        self._mistakes: list[tuple[float, str, Prediction]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"pictures {folder} cannot be made a folder ({error.strerror})") from error

    def draw(self, predictions: Iterable[Prediction], class_names: Sequence[str]) -> str:
        """Draw the first `MAX_PICTURES` and a sheet of the most confident mistakes; says in words what was drawn."""
        self._class_names = frozenset(class_names)
        for prediction in predictions:
            if not prediction.error:
                label = self._label(prediction)
                self._note(prediction, label)
                if self._n_drawn < MAX_PICTURES:
                    self._n_drawn += 1
                    name = f"{self._n_drawn:03d}-{Path(prediction.file).stem}.png"
                    draw_prediction(prediction, label).savefig(self._folder / name)
        drawn = f"{self._n_drawn} pictures in {self._folder}"
        if not self._n_labelled:
            return drawn
        if not self._mistakes:
            return f"{drawn}; none of {self._n_labelled:,} labelled images is a mistake"
        ordered = [prediction for _, _, prediction in sorted(self._mistakes, key=lambda row: (-row[0], row[1]))]
        draw_mistakes(ordered, [self._label(prediction) for prediction in ordered]).savefig(self._folder / SHEET)
        return f"{drawn}; the most confident mistakes are in {self._folder / SHEET}"

    def _label(self, prediction: Prediction) -> str:
        folder = Path(prediction.file).parent.name
        return folder if folder in self._class_names else ""

    def _note(self, prediction: Prediction, label: str) -> None:
        if not label:
            return
        self._n_labelled += 1
        best, probability = prediction.top[0]
        if best != label:
            push = heapq.heappush if len(self._mistakes) < _SHEET_COLUMNS * _SHEET_ROWS else heapq.heappushpop
            push(self._mistakes, (probability, prediction.file, prediction))


def draw_prediction(prediction: Prediction, label: str = "") -> Figure:
    """The image under its predicted class, and the probabilities as bars; `label` is the true class or empty."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    _show(left, prediction, label)
    names = [name for name, _ in prediction.top]
    probabilities = [100 * probability for _, probability in prediction.top]
    bars = right.barh(names, probabilities, color=[_BLUE, *[_GREY] * (len(names) - 1)])
    right.bar_label(bars, fmt="%.1f %%", padding=3)
    right.invert_yaxis()
    right.set(xlim=(0, 118), xlabel="probability in %")
    right.spines[["top", "right"]].set_visible(False)
    return figure


def draw_mistakes(predictions: Sequence[Prediction], labels: Sequence[str]) -> Figure:
    """A sheet of wrongly classified images, as they are ordered."""
    columns = min(_SHEET_COLUMNS, len(predictions))
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.8 * rows), layout="constrained")
    for position, (prediction, label) in enumerate(zip(predictions, labels, strict=True), start=1):
        _show(figure.add_subplot(rows, columns, position), prediction, label)
    return figure


def _show(axes: Axes, prediction: Prediction, label: str) -> None:
    axes.axis("off")
    try:
        axes.imshow(decode_image(Path(prediction.file), _SIDE))
    except UnreadableImageError as error:  # it was readable a moment ago
        axes.text(0.5, 0.5, str(error), ha="center", wrap=True)
    best, probability = prediction.top[0]
    title = f"{best} {100 * probability:.1f} %" + (f"\n(is {label})" if label and label != best else "")
    colour = "black" if not label else _RIGHT if label == best else _WRONG
    # A class may be called "$x": shown as it is written, not set as a formula.
    axes.set_title(title, fontsize=10, color=colour, parse_math=False)

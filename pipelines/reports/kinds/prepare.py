"""The report of a prepare run: the images of every class, and what is wrong with some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import pandas as pd
from mlflow.entities import Run

from pipelines.reports.origin import origin_section, title_of
from pipelines.reports.page import Gallery, Page, Picture, Section, Table
from pipelines.reports.words import say_count
from pipelines.results.data_sheet import (
    MOST_CLASSES,
    PER_CLASS,
    DataSheet,
    read_pictures,
    read_sheet,
)

_MOST_ROWS, _MOST_SIZES = 30, 10


def report(run: Run) -> Page:
    """Report a prepare run."""
    sheet = read_sheet(run.info.run_id)
    of_classes, of_groups = read_pictures(run.info.run_id)
    n_unreadable = int(run.data.metrics["n_unreadable"])
    return Page(
        title_of(run),
        _headline(sheet),
        list(_summary(sheet, n_unreadable)),
        [
            _images_section(sheet, of_classes),
            *([_left_out_section(sheet, n_unreadable)] if _is_anything_left_out(sheet) else []),
            *([_repeated_section(sheet, of_groups)] if of_groups else []),
            _classes_section(sheet),
            *([_sizes_section(sheet)] if sheet.sizes else []),
            origin_section(run),
        ],
    )


def _headline(sheet: DataSheet) -> str:
    low, high = min(sheet.counts.values()), max(sheet.counts.values())
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{say_count(sum(sheet.counts.values()), 'image')} of {len(sheet.counts):,} classes, {each} of each"


def _summary(sheet: DataSheet, n_unreadable: int) -> Iterator[str]:
    yield f"{say_count(n_unreadable, 'file')} cannot be read." if n_unreadable else "Every image can be read."
    if sheet.n_repeated:
        yield f"{sheet.n_repeated:,} images show the same as another one, in {say_count(sheet.n_groups, 'group')}."
    yield "Look at the images of each class: a wrong label is cheaper to mend now than to find later."


def _images_section(sheet: DataSheet, of_classes: Sequence[pd.DataFrame]) -> Section:
    sentences = [f"Of each class up to {PER_CLASS} images, from all over it, as they are decoded."]
    if len(sheet.counts) > len(of_classes):
        sentences.append(f"Of {len(sheet.counts):,} classes, the {MOST_CLASSES} with the fewest images are shown.")
    galleries = []
    for table in of_classes:
        name = str(table["label"].iloc[0])
        galleries.append(Gallery(f"{name}: {say_count(sheet.counts[name], 'image')}", _pictures(table)))
    return Section("Images", sentences, galleries)


def _pictures(table: pd.DataFrame, *, with_label: bool = False) -> list[Picture]:
    return [
        Picture(row["jpeg"], row["file"], [*([row["label"]] if with_label else []), PurePosixPath(row["file"]).name])
        for row in table.to_dict("records")
    ]


def _is_anything_left_out(sheet: DataSheet) -> bool:
    return bool(sheet.unreadable or sheet.notices or sheet.other_files or sheet.one_colour)


def _left_out_section(sheet: DataSheet, n_unreadable: int) -> Section:
    parts = []
    if sheet.unreadable:
        caption = f"Unreadable files, with the reason{_some(len(sheet.unreadable), n_unreadable)}"
        parts.append(Table(caption, [], [list(row) for row in sheet.unreadable.items()]))
    if sheet.other_files:
        rows = [[name, "not named like an image"] for name in sheet.other_files]
        parts.append(Table("Files that are not read", [], rows, folded=True))
    if sheet.one_colour:
        rows = [[name, "of one colour"] for name in sheet.one_colour]
        parts.append(Table("Images without anything on them, which are kept", [], rows, folded=True))
    return Section("Left out, repaired and unclear", [_ended(notice) for notice in sheet.notices], parts)


def _some(n_shown: int, n_all: int) -> str:
    return f", the first {n_shown:,} of {n_all:,}" if n_shown < n_all else ""


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(".") else f"{sentence}."


def _repeated_section(sheet: DataSheet, of_groups: Sequence[pd.DataFrame]) -> Section:
    sentences = [
        "Copies and near-copies: one photograph saved twice, resized, or a neighbouring frame. They are never split "
        "between images to learn from and images to be scored on, so they need not be removed."
    ]
    if len(of_groups) < sheet.n_groups:
        sentences.append(f"Of {sheet.n_groups:,} groups, the {len(of_groups)} largest are shown, a few images of each.")
    galleries = [
        Gallery(f"Group {number}", _pictures(table, with_label=True)) for number, table in enumerate(of_groups, start=1)
    ]
    return Section("Near-duplicates", sentences, galleries)


def _classes_section(sheet: DataSheet) -> Section:
    rows = [[name, f"{count:,}"] for name, count in sorted(sheet.counts.items(), key=lambda pair: pair[1])]
    folded = len(rows) > _MOST_ROWS
    return Section("Classes", [], [Table("Images by class, the smallest first", ["class", "images"], rows, folded)])


def _sizes_section(sheet: DataSheet) -> Section:
    total, measured = sum(sheet.counts.values()), sheet.n_measured
    sides = sorted((min(width, height), count) for width, height, count in sheet.sizes)
    sentences = [f"The shorter side is from {sides[0][0]:,} to {sides[-1][0]:,} pixels long."]
    if measured < total:
        sentences.append(f"Measured were {measured:,} of {total:,} images, from all over the data.")
    rows = [[f"{width:,} x {height:,}", f"{count:,}"] for width, height, count in sheet.sizes[:_MOST_SIZES]]
    caption = "The most frequent sizes" if len(sheet.sizes) > _MOST_SIZES else "Sizes"
    return Section("Sizes", sentences, [Table(caption, ["width x height in pixels", "images"], rows)])

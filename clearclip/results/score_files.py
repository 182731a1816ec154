"""Confusion matrices and scores of classes as CSV, and the matrix as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clearclip.results.table_text import csv_name
from clearclip.utils.files import write_bytes
from clearclip.visualize.confusion_picture import confusion_picture


def write_score_files(
    folder: str | Path,
    name: str,
    classes: Sequence[str],
    confusion: np.ndarray,
    columns: Mapping[str, np.ndarray],
    title: str,
) -> list[Path]:
    """Write ``NAME_confusion.csv``, ``NAME_classes.csv`` and ``NAME_confusion.png``.

    Args:
        folder: where to; it is made.
        name: the files' first part.
        classes: names in label order.
        confusion: (classes, classes) integers, rows are the ground truth.
        columns: what is said of each class, by heading; NaN leaves a cell empty.
        title: above the picture.

    Returns:
        The three paths.

    Raises:
        UserError: the folder cannot be written.
    """
    # Class names may be anything, and spreadsheets compute what looks like a formula.
    names = [csv_name(class_name) for class_name in classes]
    matrix_rows = [[name, *map(int, row)] for name, row in zip(names, confusion, strict=True)]
    class_rows = [[name, *map(_cell, values)] for name, *values in zip(names, *columns.values(), strict=True)]
    folder = Path(folder)
    return [
        _write_csv(folder / f"{name}_confusion.csv", ["truth \\ prediction", *names], matrix_rows),
        _write_csv(folder / f"{name}_classes.csv", ["class", *columns], class_rows),
        write_bytes(folder / f"{name}_confusion.png", confusion_picture(confusion, classes, title)),
    ]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return write_bytes(path, text.getvalue().encode("utf-8"))


def _cell(value: Any) -> int | float | str:
    """A number in full; nothing for NaN."""
    if isinstance(value, np.integer):
        return int(value)
    if np.isnan(value):
        return ""
    return float(value)

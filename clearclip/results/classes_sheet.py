"""The sheet of a dataset's classes: the scores of each by the latest run of each method, weights and protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.cells import STATED, in_order_of_time
from clearclip.results.matching import protocol_of
from clearclip.results.protocols import dataset_title
from clearclip.results.record import Record
from clearclip.results.sheet_style import BOLD, RIGHT, finish_sheet, start_sheet, write_row

#: The line of the first class, below the headings.
_FIRST_CLASS = 5


@dataclass(frozen=True)
class RunColumn:
    """What the column of a run is called; of several runs with the same name the latest is shown.

    Attributes:
        method, weights, protocol: of the run; weights have a mark where they are stated by the user.
        classes: how many there are.
    """

    method: str
    weights: str
    protocol: str
    classes: int


#: What is said of each class, one block below the other: heading → the scores of a run.
_BLOCKS: dict[str, Callable[[Record], Sequence[float | None]]] = {
    "IoU": lambda run: run.iou,
    "recall (accuracy)": lambda run: run.recall,
    "precision": lambda run: run.precision,
    "Dice": lambda run: run.dice,
}


def write_classes(sheet: Worksheet, dataset: str, records: Sequence[Record]) -> None:
    """Write classes × runs, by the order of the classes: IoU, and below it recall, precision and Dice.

    Args:
        sheet: an empty sheet.
        dataset: its name.
        records: of that dataset.
    """
    start_sheet(sheet, f"{dataset_title(dataset)}: IoU of each class, and recall, precision and Dice below, %")
    runs = latest_runs(records)
    write_row(sheet, 2, ["method", *(column.method for column in runs)], BOLD)
    write_row(sheet, 3, ["weights", *(column.weights for column in runs)], BOLD)
    write_row(sheet, 4, ["protocol", *(column.protocol for column in runs)], BOLD)
    # Classes are known by their place: names may repeat, and runs may have different ones.
    class_lists = [run.classes for run in runs.values()]
    names = max(class_lists, key=len, default=[])
    for heading, scores in _BLOCKS.items():
        columns = [scores(run) for run in runs.values()]
        # Records of earlier versions have IoU only.
        if any(columns):
            _write_block(sheet, heading, names, columns)
        if heading == "IoU":
            means = [run.mIoU for run in runs.values()]
            write_row(sheet, sheet.max_row + 1, ["mIoU", *map(_score_or_mark, means)], BOLD)
    for row in sheet.iter_rows(min_row=_FIRST_CLASS, min_col=2):
        for cell in row:
            cell.number_format = "0.0"
            cell.alignment = RIGHT
    notes: list[str] = []
    if any(column.weights.endswith(STATED[0]) for column in runs):
        notes.append(STATED)
    finish_sheet(sheet, header=4, columns=1, notes=notes)


def _write_block(
    sheet: Worksheet, heading: str, names: Sequence[str], columns: Sequence[Sequence[float | None]]
) -> None:
    """A line for each class. The first block needs no heading: the sheet's own is above it."""
    if sheet.max_row >= _FIRST_CLASS:
        write_row(sheet, sheet.max_row + 2, [heading], BOLD)
    # A run with other classes may have fewer of them.
    for name, *scores in zip_longest(names, *columns):
        write_row(sheet, sheet.max_row + 1, [name, *map(_score_or_mark, scores)])


def _score_or_mark(score: Any) -> Any:
    """A score; n/a of a class that occurs nowhere, and of one that a run does not have."""
    return "n/a" if score is None else score


def latest_runs(records: Sequence[Record]) -> dict[RunColumn, Record]:
    """The runs that are shown, in the order in which their kind was first run."""
    runs: dict[RunColumn, Record] = {}
    for record in in_order_of_time(records):
        if not record.classes:
            continue
        weights = record.weights
        if record.facts.get("weights", {}).get("origin") == "stated":
            weights += STATED[0]
        runs[RunColumn(record.method, weights, protocol_of(record), len(record.iou))] = record
    return runs

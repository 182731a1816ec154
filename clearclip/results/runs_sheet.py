"""The sheet of runs: what each one was, its scores, why it is in no table, and, folded away, every setting."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.explanation import reasons_against_tables
from clearclip.results.matching import protocol_of
from clearclip.results.protocols import dataset_title
from clearclip.results.record import Record
from clearclip.results.sheet_style import BOLD, INDENTED, finish_sheet, start_sheet, write_row

#: A sheet takes 16,384 columns; no run of ours has a hundred settings.
MOST_SETTINGS = 1000


def _score(value: float | None) -> float | str:
    """A score; n/a where no pixel counted."""
    return "n/a" if value is None else value


#: The columns that are always in view: heading → what a record has there.
RUN_COLUMNS: dict[str, Callable[[Record], Any]] = {
    "line": lambda record: record.line,
    "time": lambda record: record.time,
    "dataset": lambda record: dataset_title(record.dataset),
    "method": lambda record: record.method,
    "weights": lambda record: record.weights,
    "protocol": protocol_of,
    "images": lambda record: record.images,
    "skipped": lambda record: record.skipped,
    "mIoU": lambda record: _score(record.mIoU),
    "aAcc": lambda record: _score(record.aAcc),
    "mAcc": lambda record: _score(record.mAcc),
    "not in a table because": lambda record: "; ".join(reasons_against_tables(record)),
    "images/s": lambda record: record.images_per_second,
    "version": lambda record: record.version,
    "commit": lambda record: record.commit,
}


def write_runs(sheet: Worksheet, records: Sequence[Record], remarks: Sequence[str]) -> None:
    """Write a line for each run.

    Args:
        sheet: an empty sheet.
        records, remarks: as :func:`~clearclip.results.records.read_records` gives them.
    """
    start_sheet(sheet, "All runs: mIoU and accuracies in percent")
    settings_of_runs = [flat_facts(record) for record in records]
    # Runs of different versions have different settings.
    names = _setting_names(settings_of_runs)
    write_row(sheet, 2, [*RUN_COLUMNS, *names], BOLD)
    for number, (record, settings) in enumerate(zip(records, settings_of_runs, strict=True), start=3):
        values = [column(record) for column in RUN_COLUMNS.values()]
        write_row(sheet, number, values + [settings.get(name) for name in names])
        _format_line(sheet, number)
    notes = list(remarks)
    if names:
        notes.insert(0, f"{len(names)} columns of settings are folded to the right (+ above them)")
    finish_sheet(sheet, header=2, columns=0, notes=notes)
    # On the screen settings are folded, on paper they are left out.
    _fold_columns(sheet, len(RUN_COLUMNS) + 1, len(RUN_COLUMNS) + len(names))
    sheet.print_area = f"A1:{get_column_letter(len(RUN_COLUMNS))}{sheet.max_row}"


def _setting_names(settings_of_runs: Sequence[dict[str, Any]]) -> list[str]:
    """The settings that any run has, in the order in which they first occur."""
    names: dict[str, None] = {}
    for settings in settings_of_runs:
        names |= dict.fromkeys(settings)
    return list(names)[:MOST_SETTINGS]


def _format_line(sheet: Worksheet, number: int) -> None:
    """Scores to two decimals, and texts a little away from the number before them."""
    for cell in sheet[number][: len(RUN_COLUMNS)]:
        if isinstance(cell.value, float):
            cell.number_format = "0.00"
        elif isinstance(cell.value, str):
            cell.alignment = INDENTED


def _fold_columns(sheet: Worksheet, first: int, last: int) -> None:
    """Fold columns away; a click on + shows them."""
    for column in range(first, last + 1):
        dimension = sheet.column_dimensions[get_column_letter(column)]
        dimension.outlineLevel, dimension.hidden = 1, True
    sheet.sheet_properties.outlinePr.summaryRight = False


def flat_facts(record: Record) -> dict[str, Any]:
    """The facts of a run, one value for each name: ``weights: origin``."""
    settings: dict[str, Any] = {}
    for section, values in record.facts.items():
        # Most facts are in sections; the version of the numbers is not.
        if not isinstance(values, dict):
            settings[section] = _short(values)
            continue
        for name, value in values.items():
            settings[f"{section}: {name}"] = _short(value)
    return settings


def _short(value: Any) -> Any:
    """A value that a cell can hold: lists and objects as JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    return json.dumps(value)

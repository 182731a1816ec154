"""The sheets of the workbook: the tables, the list of runs, and the IoU of each class."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.cells import (
    OWN_ROW,
    STATED,
    Cell,
    fill_row,
    headings,
    notes_of,
    own_rows,
    protocol_of,
    replaced_remarks,
)
from clearclip.results.explanation import not_in_table_because
from clearclip.results.protocols import dataset_title, protocol_names
from clearclip.results.record import Record
from clearclip.results.sheet_style import (
    BETTER,
    BOLD,
    CENTER,
    RIGHT,
    WORSE,
    finish_sheet,
    start_sheet,
    write_cell,
    write_row,
)
from clearclip.results.table_definitions import Row, Table, find_table, tables

#: Differences to the published number beyond this many points are coloured.
NOTABLE = 0.5
_TABLE_NOTES = (
    "here: measured, complete runs of the published images by this protocol only; all others are in the sheet of runs",
    "publ.: published; diff.: here minus published, in points; by …: an independent re-run, measured by others",
    "–: not measured here; n/a: not published. Coloured: more than 0.5 points from the published figure",
)
_MARK_FORMAT = '{form}"{mark}"'


@dataclass(frozen=True)
class Sheet:
    """A sheet that is to be made.

    Attributes:
        title: its name, as long as it may be.
        write: fills an empty worksheet.
        has_measured: it is a table that shows a measured number.
    """

    title: str
    write: Callable[[Worksheet], None]
    has_measured: bool = False


def make_sheets(records: Sequence[Record], remarks: Sequence[str]) -> list[Sheet]:
    """All sheets of these records: tables with measured numbers, the runs, the classes, and the other tables.

    Args:
        records, remarks: as :func:`~clearclip.results.records.read_records` gives them.
    """
    table_sheets = [_table_sheet(table, protocol, records) for table, protocol in _shown_tables(records)]
    sheets = [sheet for sheet in table_sheets if sheet.has_measured]
    sheets.append(Sheet("runs", lambda worksheet: write_runs(worksheet, records, remarks)))
    for dataset in dict.fromkeys(record.dataset for record in records):
        sheets.append(_classes_sheet(dataset, [record for record in records if record.dataset == dataset]))
    return sheets + [sheet for sheet in table_sheets if not sheet.has_measured]


def _shown_tables(records: Sequence[Record]) -> list[tuple[Table, str]]:
    """The tables and the protocols by which they are shown: ClearCLIP's, and others that runs were made by."""
    first, *further = protocol_names()
    run_protocols = {protocol_of(record) for record in records}
    shown = [(table, first) for table in tables().values()]
    for protocol in further:
        if protocol in run_protocols:
            shown += [(table, protocol) for table in tables().values() if table.any_protocol]
    if any(record.dataset == "miniature" for record in records):
        shown += [(find_table(table.name, miniature=True), first) for table in tables().values() if table.miniature]
    return shown


def _table_sheet(table: Table, protocol: str, records: Sequence[Record]) -> Sheet:
    """The sheet of a table by a protocol, with the user's own methods as its last rows."""
    table = table.with_rows([*table.rows, *own_rows(table, records, protocol)])
    rows = [(row, fill_row(table, row, records, protocol)) for row in table.rows]
    title = table.title if protocol == protocol_names()[0] else f"{table.title}, {protocol}"
    has_measured = any(cell.measured is not None for _, cells in rows for cell in cells)
    return Sheet(title, lambda worksheet: write_table(worksheet, table, protocol, rows), has_measured)


@dataclass(frozen=True)
class _Column:
    """One column of a benchmark: its heading, what it shows of a cell, and how.

    Attributes:
        heading: below the benchmark's name.
        value: of a cell; None where there is none.
        missing: what stands for None.
        form: the number's format.
        mark: of a cell, behind its number.
    """

    heading: str
    value: Callable[[Cell], float | None]
    missing: str
    form: str
    mark: Callable[[Cell], str]


_HERE = _Column("here", lambda cell: cell.measured, "–", "0.0", lambda cell: cell.measured_mark)
_PUBLISHED = _Column(
    "publ.",
    lambda cell: None if cell.published is None else cell.published.miou,
    "n/a",
    "0.0",
    lambda cell: cell.published_mark,
)
_DIFFERENCE = _Column("diff.", lambda cell: cell.difference, "–", "+0.0;-0.0;0.0", lambda cell: "")


def _rerun_column(name: str) -> _Column:
    """The numbers that somebody measured again."""

    def value(cell: Cell) -> float | None:
        return cell.reruns[name].miou if name in cell.reruns else None

    return _Column(f"by {name}", value, "n/a", "0.0", lambda cell: "")


def _columns(table: Table, position: int, rows: Sequence[tuple[Row, Sequence[Cell]]]) -> list[_Column]:
    """The columns of a benchmark, or of the mean: nobody has published or measured the miniature."""
    if table.is_miniature:
        return [_HERE]
    names = dict.fromkeys(name for _, cells in rows for name in cells[position].reruns)
    return [_HERE, _PUBLISHED, *map(_rerun_column, names), _DIFFERENCE]


def write_table(sheet: Worksheet, table: Table, protocol: str, rows: Sequence[tuple[Row, Sequence[Cell]]]) -> None:
    """The paper's layout: rows × benchmarks, each with measured and published mIoU, re-runs, and the difference.

    Args:
        sheet: an empty sheet.
        table, protocol: which table.
        rows: its rows with their cells.
    """
    suffix = "" if protocol == protocol_names()[0] else f", protocol {protocol}"
    start_sheet(sheet, f"ClearCLIP, {table.title}{suffix}: mIoU, %")
    write_row(sheet, 2, ["ViT", "system", "ClearCLIP"], BOLD)
    first_column = 4
    for position, heading in enumerate(headings(table)):
        columns = _columns(table, position, rows)
        last_column = first_column + len(columns) - 1
        write_cell(sheet.cell(2, first_column), heading, BOLD).alignment = CENTER
        sheet.merge_cells(start_row=2, start_column=first_column, end_row=2, end_column=last_column)
        for offset, column in enumerate(columns):
            write_cell(sheet.cell(3, first_column + offset), column.heading, BOLD).alignment = RIGHT
            for number, (_, cells) in enumerate(rows, start=4):
                _write_number(sheet, number, first_column + offset, column, cells[position])
        first_column = last_column + 1
    for number, (row, _) in enumerate(rows, start=4):
        name = f"{row.name}{OWN_ROW[0]}" if row.is_own else row.name
        write_row(sheet, number, [row.vit, name, row.clearclip])
    finish_sheet(sheet, 3, 3, _notes_of_table(table, rows))


def _write_number(sheet: Worksheet, row: int, number: int, column: _Column, cell: Cell) -> None:
    """One number of a table, or what stands for it."""
    value, mark = column.value(cell), column.mark(cell)
    target = write_cell(sheet.cell(row, number), column.missing if value is None else value)
    target.alignment = RIGHT
    target.number_format = _MARK_FORMAT.format(form=column.form, mark=mark) if mark else column.form
    if column is _DIFFERENCE and value is not None and abs(value) > NOTABLE:
        target.fill = BETTER if value > 0 else WORSE


def _notes_of_table(table: Table, rows: Sequence[tuple[Row, Sequence[Cell]]]) -> list[str]:
    """What is said below a table: what its columns mean, its marks, its sources, and which runs it does not show."""
    every_cell = [cell for _, cells in rows for cell in cells]
    notes = [table.note, *_TABLE_NOTES, *notes_of([row for row, _ in rows], every_cell)]
    sources: dict[str, None] = {}
    for cell in every_cell:
        if cell.published is not None:
            sources[f"publ.: {cell.published.source}"] = None
        for name, number in cell.reruns.items():
            sources[f"by {name}: {number.source}"] = None
    return [*notes, *sources, *replaced_remarks(table, rows)]


#: The columns of the list of runs that are always in view: heading → what a record has there.
_RUN_COLUMNS: dict[str, Callable[[Record], Any]] = {
    "line": lambda record: record.line,
    "time": lambda record: record.time,
    "dataset": lambda record: dataset_title(record.dataset),
    "method": lambda record: record.method,
    "weights": lambda record: record.weights,
    "protocol": protocol_of,
    "images": lambda record: record.images,
    "skipped": lambda record: record.skipped,
    "mIoU": lambda record: "n/a" if record.mIoU is None else record.mIoU,
    "aAcc": lambda record: "n/a" if record.aAcc is None else record.aAcc,
    "mAcc": lambda record: "n/a" if record.mAcc is None else record.mAcc,
    "not in a table because": lambda record: "; ".join(not_in_table_because(record)),
    "images/s": lambda record: record.images_per_second,
    "version": lambda record: record.version,
    "commit": lambda record: record.commit,
}


def write_runs(sheet: Worksheet, records: Sequence[Record], remarks: Sequence[str]) -> None:
    """One line per run: what it was, its scores and why it is in no table; then, folded away, every setting.

    Args:
        sheet: an empty sheet.
        records, remarks: as :func:`~clearclip.results.records.read_records` gives them.
    """
    start_sheet(sheet, "All runs: mIoU and accuracies in percent")
    facts = [flat_facts(record) for record in records]
    setting_names = list(dict.fromkeys(name for settings in facts for name in settings))
    write_row(sheet, 2, [*_RUN_COLUMNS, *setting_names], BOLD)
    for number, (record, settings) in enumerate(zip(records, facts, strict=True), start=3):
        values = [column(record) for column in _RUN_COLUMNS.values()]
        write_row(sheet, number, [*values, *(settings.get(name) for name in setting_names)])
        for cell in sheet[number][: len(_RUN_COLUMNS)]:
            if isinstance(cell.value, float):
                cell.number_format = "0.00"
    notes = [f"{len(setting_names)} columns of settings are folded to the right (+ above them)"] * bool(setting_names)
    finish_sheet(sheet, 2, 0, [*notes, *remarks])
    _fold_columns(sheet, len(_RUN_COLUMNS) + 1, len(_RUN_COLUMNS) + len(setting_names))
    sheet.print_area = f"A1:{get_column_letter(len(_RUN_COLUMNS))}{sheet.max_row}"


def _fold_columns(sheet: Worksheet, first: int, last: int) -> None:
    """Fold columns away; a click on + shows them."""
    for column in range(first, last + 1):
        dimension = sheet.column_dimensions[get_column_letter(column)]
        dimension.outlineLevel, dimension.hidden = 1, True
    sheet.sheet_properties.outlinePr.summaryRight = False


def flat_facts(record: Record) -> dict[str, Any]:
    """The facts of a run, one value for each name: ``weights: origin``."""
    settings: dict[str, Any] = {}
    for part, values in record.facts.items():
        for name, value in (values if isinstance(values, dict) else {"": values}).items():
            is_short = value is None or isinstance(value, str | int | float)
            settings[f"{part}: {name}" if name else part] = value if is_short else json.dumps(value)
    return settings


def _classes_sheet(dataset: str, records: Sequence[Record]) -> Sheet:
    """The sheet of a dataset's classes."""
    title = f"IoU {dataset_title(dataset)}"
    return Sheet(title, lambda worksheet: write_classes(worksheet, dataset, records))


def write_classes(sheet: Worksheet, dataset: str, records: Sequence[Record]) -> None:
    """IoU: classes × the latest run of each method, weights and protocol, by the order of the classes.

    Args:
        sheet: an empty sheet.
        dataset: its name.
        records: of that dataset.
    """
    start_sheet(sheet, f"{dataset_title(dataset)}: IoU of each class, %")
    runs = _latest_runs(records)
    for number, heading in enumerate(("method", "weights", "protocol")):
        write_row(sheet, 2 + number, [heading, *(key[number] for key in runs)], BOLD)
    # Classes are known by their place: names may repeat.
    names = max((run.classes for run in runs.values()), key=len, default=[])
    lines = zip_longest(names, *(run.iou for run in runs.values()))
    for number, (name, *values) in enumerate(lines, start=5):
        write_row(sheet, number, [name, *("n/a" if value is None else value for value in values)])
    scores = ["n/a" if run.mIoU is None else run.mIoU for run in runs.values()]
    write_row(sheet, sheet.max_row + 1, ["mIoU", *scores], BOLD)
    for row in sheet.iter_rows(min_row=5, min_col=2):
        for cell in row:
            cell.number_format, cell.alignment = "0.0", RIGHT
    is_marked = any(STATED[0] in weights for _, weights, *_ in runs)
    finish_sheet(sheet, 4, 1, [STATED] * is_marked)


def _latest_runs(records: Sequence[Record]) -> dict[tuple[str, str, str, int], Record]:
    """(method, weights, protocol, number of classes) → the run that began last."""
    runs: dict[tuple[str, str, str, int], Record] = {}
    for record in sorted(records, key=lambda record: (record.moment, record.line)):
        if not record.classes:
            continue
        is_stated = record.facts.get("weights", {}).get("origin") == "stated"
        weights = f"{record.weights}{STATED[0]}" if is_stated else record.weights
        runs[record.method, weights, protocol_of(record), len(record.iou)] = record
    return runs

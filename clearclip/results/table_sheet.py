"""The sheet of a table: rows × benchmarks, each with measured and published mIoU, re-runs, and the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.cells import Cell, FilledRow, headings, marked_name, notes_of, replaced_remarks
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
from clearclip.results.table_definitions import Table

#: Differences to the published number beyond this many points are coloured.
NOTABLE = 0.5
_FIRST_NUMBERS = 4  # the columns before it name the row
_NOTES = (
    "here: measured, complete runs of the published images by this protocol only; all others are in the sheet of runs",
    "publ.: published; diff.: here minus published, in points; by …: an independent re-run, measured by others",
    "–: not measured here; n/a: not published. Coloured: more than 0.5 points from the published figure",
)


@dataclass(frozen=True)
class NumberColumn:
    """One column of a benchmark: its heading, what it shows of a cell, and how.

    Attributes:
        heading: below the benchmark's name.
        value: the number of a cell; None where there is none.
        placeholder: what stands for None.
        number_format: the number's format.
        mark: of a cell, behind its number.
    """

    heading: str
    value: Callable[[Cell], float | None]
    placeholder: str
    number_format: str
    mark: Callable[[Cell], str]


def _measured(cell: Cell) -> float | None:
    return cell.measured


def _published(cell: Cell) -> float | None:
    return cell.published.miou if cell.published is not None else None


def _difference(cell: Cell) -> float | None:
    return cell.difference


def _no_mark(cell: Cell) -> str:
    return ""


_HERE = NumberColumn("here", _measured, "–", "0.0", lambda cell: cell.measured_mark)
_PUBLISHED = NumberColumn("publ.", _published, "n/a", "0.0", lambda cell: cell.published_mark)
_DIFFERENCE = NumberColumn("diff.", _difference, "–", "+0.0;-0.0;0.0", _no_mark)


def _rerun_column(name: str) -> NumberColumn:
    """The numbers that somebody measured again."""

    def value(cell: Cell) -> float | None:
        return cell.reruns[name].miou if name in cell.reruns else None

    return NumberColumn(f"by {name}", value, "n/a", "0.0", _no_mark)


def number_columns(table: Table, cells: Sequence[Cell]) -> list[NumberColumn]:
    """The columns of a benchmark.

    Args:
        table: the table.
        cells: those of the benchmark.
    """
    # Columns of published numbers and of differences from them would be empty.
    if not table.is_published:
        return [_HERE]
    names: dict[str, None] = {}
    for cell in cells:
        names |= dict.fromkeys(cell.reruns)
    return [_HERE, _PUBLISHED, *map(_rerun_column, names), _DIFFERENCE]


def write_table(sheet: Worksheet, table: Table, heading: str, rows: Sequence[FilledRow]) -> None:
    """Write a table in the layout of the paper.

    Args:
        sheet: an empty sheet.
        table: the table.
        heading: its title, with the protocol where it is not ClearCLIP's.
        rows: its rows with their cells.
    """
    start_sheet(sheet, f"ClearCLIP, {heading}: mIoU, %")
    write_row(sheet, 2, ["ViT", "system", "ClearCLIP"], BOLD)
    first_column = _FIRST_NUMBERS
    for position, title in enumerate(headings(table)):
        cells = [row_cells[position] for _, row_cells in rows]
        columns = number_columns(table, cells)
        _write_title(sheet, title, first_column, len(columns))
        for offset, column in enumerate(columns):
            _write_column(sheet, first_column + offset, column, cells)
        first_column += len(columns)
    for number, (row, _) in enumerate(rows, start=4):
        write_row(sheet, number, [row.vit, marked_name(row, row.name), row.clearclip])
    finish_sheet(sheet, header=3, columns=3, notes=_notes(table, rows))


def _write_title(sheet: Worksheet, title: str, column: int, width: int) -> None:
    """A benchmark's name above its columns."""
    write_cell(sheet.cell(2, column), title, BOLD).alignment = CENTER
    sheet.merge_cells(start_row=2, start_column=column, end_row=2, end_column=column + width - 1)


def _write_column(sheet: Worksheet, number: int, column: NumberColumn, cells: Sequence[Cell]) -> None:
    """The heading of a column and its numbers."""
    write_cell(sheet.cell(3, number), column.heading, BOLD).alignment = RIGHT
    for row, cell in enumerate(cells, start=4):
        value = column.value(cell)
        if value is None:
            write_cell(sheet.cell(row, number), column.placeholder).alignment = RIGHT
            continue
        target = write_cell(sheet.cell(row, number), value)
        target.alignment = RIGHT
        target.number_format = column.number_format
        # A mark within the number's format leaves the cell a number that can be computed with.
        if column.mark(cell):
            target.number_format += f'"{column.mark(cell)}"'
        if column is _DIFFERENCE and value > NOTABLE:
            target.fill = BETTER
        elif column is _DIFFERENCE and value < -NOTABLE:
            target.fill = WORSE


def _notes(table: Table, rows: Sequence[FilledRow]) -> list[str]:
    """What is said below a table: what its columns mean, its marks, its sources, and which runs it does not show."""
    every_cell: list[Cell] = []
    for _, cells in rows:
        every_cell += cells
    return [table.note, *_NOTES, *notes_of(rows), *_sources(every_cell), *replaced_remarks(table, rows)]


def _sources(cells: Sequence[Cell]) -> list[str]:
    """Where published numbers and re-runs were read, each source once."""
    sources: dict[str, None] = {}
    for cell in cells:
        if cell.published is not None:
            sources[f"publ.: {cell.published.source}"] = None
        for name, number in cell.reruns.items():
            sources[f"by {name}: {number.source}"] = None
    return list(sources)

"""How cells of the workbook are written: texts as texts, one font, columns as wide as what stands in them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from openpyxl.cell.cell import Cell
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

#: One font for everything: openpyxl's own default has no name in cells that are bold, and programs choose another.
FONT_NAME, FONT_SIZE = "Calibri", 11
PLAIN = Font(name=FONT_NAME, size=FONT_SIZE)
BOLD = Font(name=FONT_NAME, size=FONT_SIZE, bold=True)
TITLE = Font(name=FONT_NAME, size=14, bold=True)
NOTE_FONT = Font(name=FONT_NAME, size=FONT_SIZE, italic=True, color="666666")
RIGHT, CENTER = Alignment(horizontal="right"), Alignment(horizontal="center")
INDENTED = Alignment(horizontal="left", indent=1)
BETTER, WORSE = (PatternFill("solid", fgColor=colour) for colour in ("BBD7F0", "F6C9A8"))

#: What XML cannot hold: control characters, halves of surrogate pairs, and two code points that are none.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
#: Excel takes 32,767 units of UTF-16, of which a character may need two.
_LONGEST_TEXT = 16_000
#: Whole numbers beyond it lose digits in a cell.
_EXACT = 2**53
#: What a sheet's name may not have.
_NO_TITLE = str.maketrans("[]:*?/\\'", "        ")


def cell_text(value: object) -> str:
    """A text that a cell can hold."""
    text = _NO_XML.sub("�", str(value))
    if len(text) > _LONGEST_TEXT:
        return f"{text[:_LONGEST_TEXT]}…"
    return text


def write_cell(cell: Cell, value: Any, font: Font = PLAIN) -> Cell:
    """Put a number, a text or nothing into a cell. A text is never a formula, whatever it begins with."""
    cell.font = font
    if value is None or isinstance(value, bool) or _is_exact(value):
        cell.value = value
    else:
        cell.value = cell_text(value)
        cell.data_type = "s"
        # Without it a program would compute the text as soon as somebody edits the cell.
        cell.quotePrefix = cell.value[:1] in ("=", "+", "-", "@", "'")
    return cell


def _is_exact(value: Any) -> bool:
    """Whether it is a number that a cell holds to its last digit."""
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _EXACT


def write_row(sheet: Worksheet, row: int, values: Sequence[Any], font: Font = PLAIN) -> None:
    """Put values into a row, from its first column."""
    for column, value in enumerate(values, start=1):
        write_cell(sheet.cell(row, column), value, font)


def sheet_title(name: str) -> str:
    """A name that a sheet may have, short enough that openpyxl can number it where another sheet has it."""
    title = " ".join(cell_text(name).translate(_NO_TITLE).split())[:26].strip()
    return title or "sheet"


def start_sheet(sheet: Worksheet, heading: str) -> None:
    """The heading of a sheet, and how it is printed: landscape, as wide as a page."""
    write_cell(sheet["A1"], heading, TITLE)
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.paperSize = sheet.PAPERSIZE_A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    sheet.oddFooter.center.text = "&A, page &P of &N"


def finish_sheet(sheet: Worksheet, header: int, columns: int, notes: Sequence[str] = ()) -> None:
    """Headings that stay in view and come again on every page; widths; notes below.

    Args:
        sheet: with its heading in the first row.
        header: the last row of headings.
        columns: how many of the first columns stay in view.
        notes: lines below the table.
    """
    sheet.freeze_panes = sheet.cell(header + 1, columns + 1)
    sheet.print_title_rows = f"1:{header}"
    set_widths(sheet, header)
    for note in notes:
        write_cell(sheet.cell(sheet.max_row + 1, 1), note, NOTE_FONT)


def set_widths(sheet: Worksheet, header: int) -> None:
    """Make columns as wide as what stands in them, and merged headings as wide as they need."""
    widths: dict[int, float] = {}
    merged = {str(area.start_cell.coordinate): area for area in sheet.merged_cells.ranges}
    for row in sheet.iter_rows(min_row=2):
        for cell in row:
            if cell.value is not None and cell.coordinate not in merged:
                widths[cell.column] = max(widths.get(cell.column, 0), min(_shown_length(cell) + 2, 40))
    for coordinate, area in merged.items():
        # A heading that is wider than its columns would be cut off on both sides.
        columns = range(area.min_col, area.max_col + 1)
        missing_width = len(str(sheet[coordinate].value)) + 2 - sum(widths.get(column, 0) for column in columns)
        for column in columns:
            widths[column] = widths.get(column, 0) + max(0, missing_width) / len(columns)
    for column, width in widths.items():
        sheet.column_dimensions[get_column_letter(column)].width = max(width, 7)


def _shown_length(cell: Cell) -> int:
    """How many characters a cell shows."""
    return len(f"{cell.value:.1f}" if isinstance(cell.value, float) else str(cell.value))

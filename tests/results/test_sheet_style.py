"""One font, and headings that fit."""

from __future__ import annotations

import zipfile

import openpyxl
import pytest
from recorded_runs import append_run, find_row

from clearclip.results.workbook import update_workbook


def make_book(path):
    """The workbook of the records beside a path."""
    assert update_workbook(path)
    return openpyxl.load_workbook(path)


def test_the_workbook_has_one_font(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path)
    make_book(path)
    with zipfile.ZipFile(path) as archive:
        styles = archive.read("xl/styles.xml").decode()
    fonts = styles[styles.index("<fonts") : styles.index("</fonts>")]
    assert fonts.count("<font>") == fonts.count('<name val="Calibri"') > 2


@pytest.mark.parametrize("sheet", ["miniature, table 2", "table 2", "benchmarks", "miniature, family"])
def test_headings_fit_above_their_columns(tmp_path, sheet):
    path = tmp_path / "results.xlsx"
    append_run(path, "miniature", row=find_row("2", "CLIP", miniature=True))
    sheet = make_book(path)[sheet]
    for area in sheet.merged_cells.ranges:
        letters = [openpyxl.utils.get_column_letter(column) for column in range(area.min_col, area.max_col + 1)]
        assert sum(sheet.column_dimensions[letter].width for letter in letters) > len(area.start_cell.value)
    lone = [cell for cell in sheet[2] if cell.value and cell.coordinate not in str(sheet.merged_cells.ranges)]
    for cell in lone:
        assert sheet.column_dimensions[cell.column_letter].width > len(cell.value)

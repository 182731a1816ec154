"""The sheet of a table: measured, published, re-runs, differences, marks and sources."""

from __future__ import annotations

import openpyxl
import pytest
from recorded_runs import append_run, evaluation, find_row

from clearclip.results.records import append
from clearclip.results.workbook import update_workbook


def make_book(path):
    """The workbook of the records beside a path."""
    assert update_workbook(path)
    return openpyxl.load_workbook(path)


def line_of(sheet, *names):
    """The cells of a table's row."""
    return next(row for row in sheet.iter_rows(min_row=4) if [cell.value for cell in row[: len(names)]] == [*names])


def test_a_table(tmp_path):
    """Title, unit, notes; titles as papers have them; what was not measured or published is said; rounded once."""
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 900)
    append_run(path, "ade20k", 335)
    append_run(path, "ade20k", 999, weights__origin="random")
    sheet = make_book(path)["table 2"]
    assert "mIoU, %" in sheet["A1"].value
    assert (sheet.page_setup.orientation, sheet.page_setup.fitToWidth) == ("landscape", 1)
    line = line_of(sheet, "ViT-B/16", "CLIP", "yes")
    assert [cell.value for cell in line[3:7]] == [45, 80.9, 80.93, pytest.approx(-35.9)]
    assert [cell.value for cell in sheet[3][3:7]] == ["here", "publ.", "by CCAR-CLIP", "diff."]
    assert line[6].fill.fgColor.rgb.endswith("F6C9A8")
    ade = [cell.value for cell in sheet[2]].index("ADE20K")
    assert [cell.value for cell in line[ade : ade + 4]] == [pytest.approx(16.75), 16.7, 16.64, pytest.approx(0.05)]
    assert line[ade + 3].fill.fill_type is None
    assert line[7].value == "–"
    notes = [str(row[0]) for row in sheet.values]
    assert any("ClearCLIP (ECCV 2024)" in note for note in notes)
    assert any(note.startswith("by CCAR-CLIP: CCAR-CLIP's README") for note in notes), "a re-run says of whom"


def test_marks_of_weights_and_sources(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc21", 900, weights__origin="stated")
    book = make_book(path)
    here = line_of(book["background"], "ViT-B/16", "CLIP", "yes")[3]
    assert (here.value, here.number_format) == (45, '0.0"*"')
    second_hand = line_of(book["background"], "ViT-B/16", "CLIP", "no")[4]
    assert (second_hand.value, second_hand.number_format) == (16.2, '0.0"†"')
    classes = [row[:2] for row in book["IoU VOC21"].values]
    assert ("weights", "CLIP ViT-B/16*") in classes, "sheets by class keep the mark"
    assert classes[-1][0] == "* weights as stated by the user"


def test_a_table_by_another_protocol(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc21", 900, find_row("family", "NACLIP"), "naclip")
    line = line_of(make_book(path)["family, naclip"], "ViT-B/16", "NACLIP")
    assert [cell.value for cell in line[3:6]] == [45, 64.07, pytest.approx(-19.07)]


def test_methods_of_the_users_own_are_rows_with_a_mark(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 700, method__label="=Neighbours", method__source="01")
    book = make_book(path)
    line = line_of(book["table 2"], "ViT-B/16", "=Neighbours‡")
    assert [cell.value for cell in line[2:5]] == [None, 35, "n/a"]
    assert any(str(row[0]).startswith("‡ no published row") for row in book["table 2"].values)


def test_the_run_that_is_not_shown_is_named(tmp_path):
    path = tmp_path / "results.xlsx"
    for hits, time in ((800, "2026-01-02T00:00:00+00:00"), (600, "2026-01-01T00:00:00+00:00")):
        run = evaluation("voc20", hits)
        run.started = time
        append([run.record], path)
    sheet = make_book(path)["table 2"]
    assert line_of(sheet, "ViT-B/16", "CLIP", "yes")[3].value == 40
    assert any("40.00 of 2026-01-02T00:00:00+00:00 is shown, not 30.00" in str(row[0]) for row in sheet.values)

"""What the sheets show: tables, runs and classes."""

from __future__ import annotations

import zipfile

import openpyxl
import pytest
from recorded_runs import append_run, evaluation, find_row

from clearclip.results.records import append
from clearclip.results.workbook import update_workbook


def make_book(path):
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


def test_the_list_of_runs(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 900)
    append_run(path, "voc21", 335, model__prob_thd=0.2)
    append_run(path, "ade20k", 999, weights__origin="random")
    sheet = make_book(path)["runs"]
    header, *runs = list(sheet.values)[1:5]

    def column(name):
        return [line[header.index(name)] for line in runs]

    assert column("dataset") == ["VOC20", "VOC21", "ADE20K"]
    assert column("protocol") == ["clearclip", "other", "clearclip"]
    assert column("mIoU") == pytest.approx([45, 16.75, 49.95])
    assert column("line") == [1, 2, 3]
    assert column("weights: origin") == ["published", "published", "random"]
    assert column("not in a table because") == [
        None,
        "model.prob_thd is 0.2, published 0.5",
        "weights is CLIP ViT-B/16 (random), published CLIP ViT-B/16",
    ]


def test_the_settings_of_runs_are_folded_away(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 900)
    sheet = make_book(path)["runs"]
    header = [cell.value for cell in sheet[2]]
    hidden = {header[dimension.min - 1] for dimension in sheet.column_dimensions.values() if dimension.hidden}
    assert {"weights: origin", "model: prob_thd"} & hidden
    visible = header.index("dataset: name")
    assert visible <= 16
    assert sheet.print_area.endswith(f"${openpyxl.utils.get_column_letter(visible)}${sheet.max_row}")


def test_classes(tmp_path):
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 900)
    assert [row[:2] for row in make_book(path)["IoU VOC20"].values][1:7] == [
        ("method", "ClearCLIP"),
        ("weights", "CLIP ViT-B/16"),
        ("protocol", "clearclip"),
        ("a", 90),
        ("b", 0),
        ("mIoU", 45),
    ]


def test_classes_are_known_by_their_place(tmp_path):
    """Two classes of one name are two lines; what no cell can hold is replaced; a text is no formula."""
    path = tmp_path / "results.xlsx"
    run = evaluation()
    run.classes = ["other\x07", "=1+1"]
    run.facts["dataset"]["name"] = "mine/of: [all]"
    append([run.record], path)
    book = make_book(path)
    sheet = book["IoU mine of all"]
    assert [row[:2] for row in sheet.values][4:6] == [("other�", pytest.approx(80.9)), ("=1+1", 0)]
    assert sheet["A6"].data_type == "s" and sheet["A6"].quotePrefix


def test_classes_that_never_counted(tmp_path):
    path = tmp_path / "results.xlsx"
    run = evaluation()
    run.scores.confusion[:] = 0
    append([run.record], path)
    assert [row[:2] for row in make_book(path)["IoU VOC20"].values][4:7] == [
        ("a", "n/a"),
        ("b", "n/a"),
        ("mIoU", "n/a"),
    ]


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

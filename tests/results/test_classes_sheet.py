"""IoU of each class: known by their place, texts as texts."""

from __future__ import annotations

import openpyxl
import pytest
from recorded_runs import append_run, evaluation

from clearclip.results.records import append
from clearclip.results.workbook import update_workbook


def make_book(path):
    """The workbook of the records beside a path."""
    assert update_workbook(path)
    return openpyxl.load_workbook(path)


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


def test_recall_precision_and_dice_are_below(tmp_path):
    """90 of 100 pixels of the first class were found, and all that were called so are."""
    path = tmp_path / "results.xlsx"
    append_run(path, "voc20", 900)
    lines = [row[:2] for row in make_book(path)["IoU VOC20"].values][8:]
    assert lines[:3] == [("recall (accuracy)", None), ("a", 90), ("b", "n/a")]
    assert lines[4:7] == [("precision", None), ("a", 100), ("b", 0)]
    assert lines[8:11] == [("Dice", None), ("a", pytest.approx(2 * 900 / 1900 * 100)), ("b", 0)]


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

"""The list of runs: why each is in no table, and its settings folded away."""

from __future__ import annotations

import openpyxl
import pytest
from recorded_runs import append_run

from clearclip.results.workbook import update_workbook


def make_book(path):
    """The workbook of the records beside a path."""
    assert update_workbook(path)
    return openpyxl.load_workbook(path)


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

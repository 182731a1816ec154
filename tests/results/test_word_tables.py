"""Studies as they are kept, shown and written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import openpyxl
import pytest

from clearclip.results.word_tables import (
    KindScores,
    MethodStudy,
    ThresholdScores,
    WordTable,
    keep_study,
    read_studies,
    studies_path,
    words_csv,
)
from clearclip.results.workbook import update_workbook

CURVE = [(0.0, 50.0), (0.5, 51.0)]


def method(name: str, published: float, plain: float, place: int, plain_place: int) -> MethodStudy:
    words = {
        "published": KindScores(published, published, published, place, place, published - 1),
        "synonyms": KindScores(plain, plain - 1, plain + 1, plain_place, plain_place + 1, plain - 1),
    }
    return MethodStudy(name, words, [ThresholdScores(50.0, 0.0, published, 0.5, 51.0, 55.0, CURVE)])


def study(dataset: str = "voc21", images: int = 2) -> WordTable:
    rows = [method("A", 50.0, 30.0, 1, 2), method("=B", 40.0, 35.0, 2, 1)]
    return WordTable(dataset, "CLIP ViT-B/16", "clearclip", images, ["published", "synonyms 1", "synonyms 2"], rows)


def test_the_verdict_says_which_words_change_the_order():
    assert study().verdict.endswith("with these words: synonyms")
    same = WordTable("voc21", "w", "p", 1, [], [method("A", 50.0, 40.0, 1, 1), method("B", 40.0, 30.0, 2, 2)])
    assert "the same" in same.verdict


def test_a_cell_shows_place_and_range():
    scores = study().methods[0].words
    assert scores["published"].text == "50.0 #1"
    assert scores["synonyms"].text == "30.0 #2-3\n29.0-31.0"


def test_a_study_made_again_takes_the_place_of_the_earlier_one(tmp_path: Path):
    results = tmp_path / "results.xlsx"
    keep_study(study("voc21"), results)
    keep_study(study("ade20k"), results)
    keep_study(study("voc21", images=7), results)
    assert {(kept.dataset, kept.images) for kept in read_studies(results)} == {("ade20k", 2), ("voc21", 7)}


@pytest.mark.parametrize("line", ["{", "[]", '{"version": 1}', '{"version": 99, "methods": []}', "null", "[" * 5000])
def test_a_damaged_line_is_named_and_left_out(tmp_path: Path, line: str):
    results = tmp_path / "results.xlsx"
    keep_study(study(), results)
    with studies_path(results).open("a") as file:
        file.write(line + "\n")
    with pytest.warns(UserWarning, match="line 2: no study"):
        assert read_studies(results) == [study()] or len(read_studies(results)) == 1


def test_the_workbook_has_a_sheet_of_the_study(tmp_path: Path):
    results = tmp_path / "results.xlsx"
    keep_study(study(), results)
    assert update_workbook(results)
    sheet = openpyxl.load_workbook(results)["words voc21"]
    assert [sheet.cell(row, 1).value for row in (3, 4)] == ["A", "=B"]
    assert sheet.cell(4, 1).data_type == "s"
    assert sheet.cell(3, 2).value == 50.0
    # A corrected study makes the workbook again.
    keep_study(study(images=9), results)
    assert update_workbook(results)
    assert "9 images" in openpyxl.load_workbook(results)["words voc21"]["A1"].value


def test_csv_has_every_number(tmp_path: Path):
    lines = list(csv.DictReader(io.StringIO(words_csv([study()]))))
    assert [line["mIoU"] for line in lines if line["method"] == "A"] == ["50.0000", "30.0000", "50.0000", "51.0000"]
    assert lines[1]["lowest"] == "29.0000"

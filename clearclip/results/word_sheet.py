"""The sheet of a study of words and thresholds."""

from __future__ import annotations

from typing import Any

from openpyxl.worksheet.worksheet import Worksheet

from clearclip.results.sheet_style import BOLD, finish_sheet, start_sheet, write_row
from clearclip.results.word_tables import WordTable

#: Columns that hold no score.
_NO_SCORES = ("method", "place", "prob_thd", "best prob_thd")


def write_word_table(sheet: Worksheet, study: WordTable) -> None:
    """A row for each method: mIoU and place by kind of words, then what a threshold could bring."""
    start_sheet(sheet, study.title)
    columns = ["method"]
    for word_kind in study.kinds:
        columns += [word_kind, "lowest", "highest", "place"]
    columns += ["prob_thd", "best prob_thd", "best mIoU", "oracle"]
    write_row(sheet, 2, columns, BOLD)
    for row, method in enumerate(study.methods, start=3):
        values: list[Any] = [method.name]
        for scores in method.words.values():
            values += [scores.mean, scores.lowest, scores.highest, scores.best_rank]
        thresholds = method.thresholds[0]
        values += [thresholds.protocol_thd, thresholds.best_thd, thresholds.at_best, thresholds.oracle]
        write_row(sheet, row, values)
        for column, name in enumerate(columns, start=1):
            if name not in _NO_SCORES:
                sheet.cell(row, column).number_format = "0.0"
    notes = [
        f"mIoU, %, over classes that occur; place among the methods with these words; {study.verdict}",
        "oracle: an upper bound, each class with the threshold that the ground truth says is best for it",
    ]
    finish_sheet(sheet, header=2, columns=1, notes=notes)

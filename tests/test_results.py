"""Rows, workbook, tables and published figures."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from clearclip.evaluation.scores import Evaluation, Scores
from clearclip.methods import LastBlock
from clearclip.results.cells import fill_row, published_identity, to_markdown
from clearclip.results.records import read_rows, rebuild, rows_path
from clearclip.results.records import record as record_all
from clearclip.results.rows import WITHOUT_BACKGROUND, Row, published, published_value, table_rows

ROOT = Path(__file__).resolve().parents[1]
CLEARCLIP = Row("CLIP", "yes", "CLIP", "ViT-B/16", LastBlock())
PAPER = {
    ("ViT-B/16", "CLIP", "no"): (41.8, 9.2, 4.4, 5.5, 2.1, 12.6),
    ("ViT-B/16", "CLIP", "yes"): (80.9, 35.9, 23.9, 30.0, 16.7, 37.5),
    ("ViT-L/14", "GEM", "yes"): (79.7, 29.9, 19.4, 25.9, 14.2, 33.8),
    ("ViT-B/16", "MaskCLIP", "yes"): (61.4, 28.3, 18.4, 24.7, 13.6, 29.5),
}


def evaluation(
    dataset: str = "voc20", hits: int = 809, row: Row = CLEARCLIP, protocol="clearclip", failures=(), **settings
) -> Evaluation:
    """An evaluation of two classes with mIoU hits / 20, by a protocol but for ``settings``."""
    confusion = np.array([[hits, 1000 - hits], [0, 0]]) if hits < 1000 else np.array([[1000, 0], [0, 0]])
    identity = {**published_identity(ROOT, row, dataset, protocol), "precision": "fp32", "weights": "0123", **settings}
    found = dict(
        dataset=dataset, classes=["a", "b"], palette=[[0, 0, 0]] * 2, method=row.method, scores=Scores(confusion)
    )
    return Evaluation(**found, images=10, failures=dict(failures), seconds=2, images_per_second=5, settings=identity)


def record(found: Evaluation, path: Path) -> None:
    record_all([found], path, ROOT)


def test_published_numbers_are_the_papers():
    rows = {(row.vit, row.name, row.clearclip): row for row in table_rows("2")}
    assert len(rows) == 28
    for key, values in PAPER.items():
        got = [published_value("2", rows[key], name) for name in (*WITHOUT_BACKGROUND, "average")]
        assert tuple(got) == values
    cells = [published_value("2", row, name) for row in rows.values() for name in (*WITHOUT_BACKGROUND, "average")]
    assert len(cells) == 168
    assert None not in cells
    assert all(source for _, source in published().values())


def test_averages_of_the_paper():
    """Every printed average is the mean of its row to rounding, but for the two that are known not to be."""
    wrong = set()
    for row in table_rows("2"):
        cells = [published_value("2", row, name) for name in WITHOUT_BACKGROUND]
        if abs(np.mean(cells) - published_value("2", row, "average")) > 0.06:
            wrong.add((row.vit, row.label.split(",")[0]))
    assert {("ViT-B/16", "MaskCLIP + ClearCLIP"), ("ViT-B/16", "SCLIP + ClearCLIP")} <= wrong
    assert len(wrong) <= 3


def test_rows_find_their_runs(tmp_path):
    """A cell shows runs of the published protocol only."""
    path = tmp_path / "results.xlsx"
    rows = {(row.vit, row.name, row.clearclip): row for row in table_rows("2")}
    for number, name in enumerate(WITHOUT_BACKGROUND):
        record(evaluation(name, 800 + 10 * number), path)
    record(evaluation("voc20", 100, rows["ViT-B/16", "CLIP", "no"]), path)
    record(evaluation("voc20", 400, rows["ViT-B/16", "OpenCLIP", "yes"]), path)
    for settings in (
        dict(method=LastBlock(alpha=0.5).settings),
        dict(checkpoint="random"),
        dict(slide_crop=64, slide_stride=32),
        dict(prob_thd=0.5),
        dict(logit_scale=40.0),
        dict(words="other words"),
        dict(resize="(2048, 336)"),
        dict(normalization="pretrained"),
        dict(quick_gelu=False),
        dict(precision="bf16"),
        dict(limit=5),
    ):
        record(evaluation("voc20", 300, **settings), path)
    record(evaluation("voc20", 300, failures={"broken.jpg": "cut short"}), path)
    runs = read_rows(path)

    def measured(*key):
        return [cell.measured for cell in fill_row("2", rows[key], WITHOUT_BACKGROUND, runs, ROOT)]

    # Two classes, one of which is never true: mIoU is half of the first one's.
    assert measured("ViT-B/16", "CLIP", "yes") == pytest.approx([40, 40.5, 41, 41.5, 42, 41])
    assert measured("ViT-B/16", "CLIP", "no") == [pytest.approx(5)] + [None] * 5
    assert measured("ViT-B/16", "OpenCLIP", "yes")[0] == pytest.approx(20)
    assert measured("ViT-L/14", "CLIP", "yes") == [None] * 6
    text = to_markdown("2", [rows["ViT-B/16", "CLIP", "yes"]], WITHOUT_BACKGROUND, runs, ROOT)
    assert "| ViT-B/16 | CLIP | yes | 40.0 (80.9) | 40.5 (35.9) |" in text


def test_published_numbers_stay_with_their_protocol(tmp_path):
    """NACLIP's own figures stand beside a run by NACLIP's protocol only, and ClearCLIP's beside one by ClearCLIP's."""
    path = tmp_path / "results.xlsx"
    rows = {row.name: row for row in table_rows("family") if row.vit == "ViT-B/16"}
    record(evaluation("voc21", 800, rows["NACLIP"]), path)
    record(evaluation("voc21", 900, rows["NACLIP"], "naclip"), path)
    record(evaluation("voc21", 700, rows["NACLIP"], "naclip", post=None), path)  # ResCLIP's protocol

    def cell(name, protocol):
        (one,) = fill_row("family", rows[name], ("voc21",), read_rows(path), ROOT, protocol)
        return one.measured, one.published

    assert cell("NACLIP", "clearclip") == (40, None)
    assert cell("NACLIP", "naclip") == (45, 64.07)
    assert cell("NACLIP", "resclip") == (35, 58.9)
    assert cell("ClearCLIP", "clearclip") == (None, 51.8)
    assert cell("ClearCLIP", "naclip") == (None, None)
    assert cell("CLIP", "clearclip") == (None, None), "it was published with a threshold of its own"
    assert published_value("family", rows["GEM"], "voc20") == 79.9
    book = openpyxl.load_workbook(path)
    names = list(next(book["runs"].values))
    assert [line[names.index("protocol")] for line in list(book["runs"].values)[1:]] == [
        "published",
        "naclip",
        "resclip",
    ]
    line = next(line for line in book["family, protocol naclip"].values if line[1] == "NACLIP")
    assert line[3:6] == (45, 64.07, -19.07)


def test_workbook(tmp_path):
    path = tmp_path / "results.xlsx"
    record(evaluation("voc20", 900), path)
    record(evaluation("ade20k", 335), path)
    record(evaluation("ade20k", 999, checkpoint="random"), path)
    book = openpyxl.load_workbook(path)
    assert book.sheetnames[:2] == ["runs", "per-class IoU"]
    assert "table 2" in book.sheetnames
    runs = list(book["runs"].values)
    assert runs[0][:6] == ("time", "CLIP", "VIT", "method", "dataset", "images")
    assert runs[1][1:5] == ("CLIP", "ViT-B/16", "ClearCLIP", "voc20")
    assert runs[1][runs[0].index("mIoU")] == pytest.approx(45)
    assert [line[runs[0].index("protocol")] for line in runs[1:]] == ["published", "published", "other"]
    sheet = book["table 2"]
    line = next(row for row in sheet.iter_rows(min_row=3) if [c.value for c in row[:3]] == ["ViT-B/16", "CLIP", "yes"])
    assert [cell.value for cell in line[3:6]] == [45, 80.9, pytest.approx(-35.9)]
    assert line[5].fill.fgColor.rgb.endswith("F6C9A8")
    ade = sheet[1].index(next(cell for cell in sheet[1] if cell.value == "ade20k"))
    assert [cell.value for cell in line[ade : ade + 3]] == [pytest.approx(16.75), 16.7, pytest.approx(0.05)]
    assert line[ade + 2].fill.fill_type is None
    classes = list(book["per-class IoU"].values)
    assert classes[1][-2:] == ("a", 90)


def _record_some(path: Path, number: int, both: Barrier) -> None:
    both.wait()
    for index in range(5):
        record(evaluation(hits=100 * number + index), path)


def test_two_evaluations_at_once_both_arrive(tmp_path):
    path = tmp_path / "results.xlsx"
    context = multiprocessing.get_context("spawn")
    both = context.Barrier(2)
    process = context.Process(target=_record_some, args=(path, 1, both))
    process.start()
    _record_some(path, 2, both)
    process.join()
    assert process.exitcode == 0
    assert len(read_rows(path)) == 10
    assert openpyxl.load_workbook(path)["runs"].max_row == 11


@pytest.mark.parametrize("fault", ["damaged", "read-only", "a folder's place"])
def test_a_workbook_in_trouble_costs_no_result(tmp_path, fault):
    path = tmp_path / "results.xlsx"
    record(evaluation(hits=100), path)
    if fault == "damaged":
        path.write_bytes(b"no workbook")
        record(evaluation(hits=200), path)
    elif fault == "read-only":
        path.chmod(0o444)
        with pytest.warns(UserWarning, match="read-only"):
            record(evaluation(hits=200), path)
        assert openpyxl.load_workbook(path)["runs"].max_row == 2
        path.chmod(0o644)
    else:
        path.unlink()
        path.mkdir()
        with pytest.warns(UserWarning, match="rows are safe"):
            assert not rebuild(path, ROOT)
        path.rmdir()
        record(evaluation(hits=200), path)
    assert [row["mIoU"] for row in read_rows(path)] == pytest.approx([5, 10])
    assert rebuild(path, ROOT)
    assert openpyxl.load_workbook(path)["runs"].max_row == 3


def test_a_torn_line_costs_only_itself(tmp_path):
    path = tmp_path / "results.xlsx"
    record(evaluation(hits=100), path)
    rows = rows_path(path)
    rows.write_text(rows.read_text() + json.dumps({"time": "x"})[:5])
    with pytest.warns(UserWarning, match="line 2 is damaged"):
        record(evaluation(hits=200), path)
    with pytest.warns(UserWarning, match="line 2 is damaged"):
        assert [row["mIoU"] for row in read_rows(path)] == pytest.approx([5, 10])


def test_somebody_elses_workbook_is_kept(tmp_path):
    path = tmp_path / "results.xlsx"
    book = openpyxl.Workbook()
    book.active["A1"] = "mine"
    book.save(path)
    with pytest.warns(UserWarning, match="kept as"):
        record(evaluation(), path)
    assert openpyxl.load_workbook(tmp_path / "results.before.xlsx").active["A1"].value == "mine"
    assert openpyxl.load_workbook(path)["runs"].max_row == 2

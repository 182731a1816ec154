"""Which run fills which cell: published runs only, the last of them, and rows of the user's own with their mark."""

from __future__ import annotations

import json

from recorded_runs import CLEARCLIP, evaluation, find_row, make_record

from clearclip.evaluation.metric import Evaluation
from clearclip.results.cells import fill_row, headings, make_cell, notes_of, replaced_remarks
from clearclip.results.matching import protocol_of
from clearclip.results.record import parse_record
from clearclip.results.table_definitions import find_table

TABLE = find_table("2")


def dated(hits: int, time: str) -> Evaluation:
    run = evaluation("voc20", hits)
    run.started = time
    return run


def test_the_run_that_began_last_wins_and_says_over_what(tmp_path):
    """By time, not by the order of lines, and whatever zone the time is in."""
    times = {800: "2026-03-02T00:00:00+00:00", 600: "2026-03-01T00:00:00+00:00", 700: "2026-03-01T23:30:00-03:00"}
    records = [parse_record(json.loads(json.dumps(dated(hits, time).record))) for hits, time in times.items()]
    cell = make_cell(TABLE, CLEARCLIP, "voc20", records, "clearclip")
    assert cell.measured == 35, "half past eleven, three hours behind, is on the second of March"
    assert [run.mIoU for run in cell.replaced] == [30, 40]
    (remark,) = replaced_remarks(TABLE, [(CLEARCLIP, fill_row(TABLE, CLEARCLIP, records, "clearclip"))])
    assert remark == (
        "ViT-B/16 CLIP + ClearCLIP, VOC20: 35.00 of 2026-03-01T23:30:00-03:00 is shown, not "
        "30.00 of 2026-03-01T00:00:00+00:00, 40.00 of 2026-03-02T00:00:00+00:00"
    )


def test_a_run_without_a_counted_pixel_leaves_its_cell_empty():
    data = json.loads(json.dumps(evaluation().record)) | {"mIoU": None}
    (cell, *rest) = fill_row(TABLE, CLEARCLIP, [parse_record(data)], "clearclip")
    assert cell.measured is None and rest[-1].measured is None
    assert str(cell) == "– (80.9)"


def test_published_numbers_stay_with_their_protocol():
    """NACLIP's own figures stand beside a run by NACLIP's protocol only, and ClearCLIP's beside one by ClearCLIP's."""
    family = find_table("family").with_datasets(["voc21"])
    row = find_row("family", "NACLIP")
    records = [make_record("voc21", 800, row), make_record("voc21", 900, row, "naclip")]
    records.append(make_record("voc21", 700, row, "resclip"))

    def cell(system, protocol):
        (cell,) = fill_row(family, find_row("family", system), records, protocol)
        return cell.measured, cell.published.miou if cell.published else None

    assert cell("NACLIP", "clearclip") == (40, None)
    assert cell("NACLIP", "naclip") == (45, 64.07)
    assert cell("NACLIP", "resclip") == (35, 58.9)
    assert cell("ClearCLIP", "clearclip") == (None, 51.8)
    assert cell("ClearCLIP", "naclip") == (None, None)
    assert cell("CLIP", "clearclip") == (None, None), "it was published with a threshold of its own"
    assert [protocol_of(record) for record in records] == ["clearclip", "naclip", "resclip"]


def test_weights_by_the_users_word_have_a_mark():
    records = [make_record("voc20", 600, weights__origin="stated")]
    cells = fill_row(TABLE, CLEARCLIP, records, "clearclip")
    assert str(cells[0]) == "30.0* (80.9)"
    assert notes_of([(CLEARCLIP, cells)]) == ["* weights as stated by the user"]


def test_headings():
    assert headings(TABLE) == ["VOC20", "Context59", "Stuff", "Cityscapes", "ADE20K", "average"]
    assert headings(TABLE.with_datasets(["voc20"])) == ["VOC20"]
    assert headings(find_table("2", bundled=True)) == ["Miniature"]

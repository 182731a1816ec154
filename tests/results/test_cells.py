"""Which run fills which cell: published runs only, the last of them, and rows of the user's own with their mark."""

from __future__ import annotations

import json

import pytest
from recorded_runs import CLEARCLIP, append_run, evaluation, find_row, make_record

from clearclip.evaluation.metric import Evaluation
from clearclip.results.cells import (
    Cell,
    belongs,
    fill_row,
    headings,
    make_cell,
    notes_of,
    own_rows,
    protocol_of,
    replaced_remarks,
)
from clearclip.results.record import parse_record
from clearclip.results.records import read_records
from clearclip.results.table_definitions import MINIATURE_VIT, find_table

TABLE = find_table("2")
#: Changes of a run's facts by which it fills no cell.
DEVIATIONS = [
    dict(method__label="qq, no residual, no FFN, alpha 0.5"),
    dict(method__source="0123"),
    dict(weights__origin="file"),
    dict(weights__origin="random"),
    dict(weights__clip_type=None),
    dict(model__slide_stride=32),
    dict(model__prob_thd=0.5),
    dict(model__logit_scale=40.0),
    dict(model__words="others"),
    dict(model__normalization="pretrained"),
    dict(input__pipeline=[]),
    dict(input__preprocessor={"type": "ImagePreprocessor", "mean": [0, 0, 0]}),
    dict(other__hooks=[{"type": "EMAHook"}]),
    dict(environment__precision="bf16"),
    dict(dataset__count=5),
    dict(dataset__ignore_index=0),
    dict(dataset__labels="0123"),
    dict(dataset__source="0123"),
    dict(dataset__reduce_zero_label=False),
]


def test_cells_show_published_runs_only(tmp_path):
    path = tmp_path / "results.xlsx"
    for number, name in enumerate(TABLE.datasets):
        append_run(path, name, 800 + 10 * number)
    append_run(path, "voc20", 100, find_row("2", "CLIP"))
    append_run(path, "voc20", 400, find_row("2", "OpenCLIP + ClearCLIP"))
    for changes in DEVIATIONS:
        append_run(path, "voc20", 300, **changes)
    append_run(path, "voc20", 300, failures={"broken.jpg": "cut short"})
    records, remarks = read_records(path)
    assert remarks == []

    def measured(system, vit="ViT-B/16"):
        return [cell.measured for cell in fill_row(TABLE, find_row("2", system, vit), records, "clearclip")]

    # Two classes, one of which is never true: mIoU is half of the first one's.
    assert measured("CLIP + ClearCLIP") == pytest.approx([40, 40.5, 41, 41.5, 42, 41])
    assert measured("CLIP") == [pytest.approx(5)] + [None] * 5
    assert measured("OpenCLIP + ClearCLIP")[0] == pytest.approx(20)
    assert measured("CLIP + ClearCLIP", "ViT-L/14") == [None] * 6


@pytest.mark.parametrize("reasons", [["own code was imported: x.py"], ["a", "b"]])
def test_what_a_record_says_against_itself_counts(reasons):
    data = evaluation().record
    assert belongs(make_record(), CLEARCLIP, "voc20", "clearclip")
    record = parse_record(json.loads(json.dumps({**data, "not_in_table_because": reasons})))
    assert not belongs(record, CLEARCLIP, "voc20", "clearclip")


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


def test_the_protocol_of_a_run():
    clip = find_row("background", "CLIP")
    assert protocol_of(make_record("voc21", row=clip)) == "clearclip", "with the threshold of its own"
    assert protocol_of(make_record("voc21", model__prob_thd=0.2)) == "other"
    assert protocol_of(make_record(failures={"a.jpg": "cut short"})) == "clearclip, images skipped"


def test_weights_by_the_users_word_have_a_mark():
    records = [make_record("voc20", 600, weights__origin="stated")]
    cells = fill_row(TABLE, CLEARCLIP, records, "clearclip")
    assert str(cells[0]) == "30.0* (80.9)"
    assert notes_of([CLEARCLIP], cells) == ["* weights as stated by the user"]


def test_miniature_rows_belong_to_the_bundled_weights():
    row = find_row("2", "CLIP + ClearCLIP", miniature=True)
    assert row.vit == MINIATURE_VIT
    assert belongs(make_record("miniature", row=row), row, "miniature", "clearclip")
    for changes in (dict(weights__origin="file"), dict(dataset__images="0"), dict(dataset__masks="0")):
        assert not belongs(make_record("miniature", row=row, **changes), row, "miniature", "clearclip")


def test_backbones_have_the_normalisation_of_their_weights():
    row = find_row("backbones", "webli + ClearCLIP", "ViT-B-16-SigLIP")
    weights = dict(weights__model=row.vit, weights__tag=row.name, weights__clip_type=None, weights__vit_type=None)
    record = make_record("voc20", 500, model__normalization="pretrained", **weights)
    assert belongs(record, row, "voc20", "clearclip")
    assert not belongs(make_record("voc20", 500, weights__model="m", weights__tag=row.name), row, "voc20", "clearclip")


@pytest.mark.parametrize(("label", "source"), [("Neighbours", "01"), ("NACLIP (sigma=2)", None), ("ClearCLIP", "01")])
def test_methods_that_no_published_row_has_are_rows_of_their_own(label, source):
    """Own code, other options of a released method, and own code under a published name."""
    changes = {} if source is None else {"method__source": source}
    records = [make_record("voc20", 700, method__label=label, **changes), make_record("voc20", 800)]
    (row,) = own_rows(TABLE, records, "clearclip")
    assert (row.name, row.is_own, row.vit) == (label, True, "ViT-B/16")
    assert fill_row(TABLE, row, records, "clearclip")[0].measured == 35
    assert fill_row(TABLE, CLEARCLIP, records, "clearclip")[0].measured == 40
    assert notes_of([row], [Cell()])[0].startswith("‡ no published row")
    assert own_rows(find_table("ablation"), records, "clearclip") == [], "of methods, not of switches"


def test_own_rows_show_what_no_published_cell_may():
    """Code of the user's own, as records have it, and the reasons that it gives."""
    data = json.loads(json.dumps(evaluation("voc20", 700, method__label="Neighbours").record))
    data["facts"]["own code"] = {"file neighbours.py": "01"}
    data["not_in_table_because"] = ["own code was imported: neighbours.py", "Neighbours is a method of your own"]
    record = parse_record(data)
    (row,) = own_rows(TABLE, [record], "clearclip")
    assert make_cell(TABLE, row, "voc20", [record], "clearclip").measured == 35
    # Under a published name, it is no published run.
    data["method"] = data["facts"]["method"]["label"] = "ClearCLIP"
    record = parse_record(data)
    assert make_cell(TABLE, CLEARCLIP, "voc20", [record], "clearclip").measured is None
    assert [row.label for row in own_rows(TABLE, [record], "clearclip")] == ["ClearCLIP"]


@pytest.mark.parametrize(
    "changes", [dict(model__prob_thd=0.3), dict(weights__origin="file"), dict(dataset__count=3), dict(other__x=1)]
)
def test_own_rows_are_of_complete_runs_by_the_protocol(changes):
    records = [make_record("voc20", method__label="Neighbours", method__source="01", **changes)]
    assert own_rows(TABLE, records, "clearclip") == []


def test_headings():
    assert headings(TABLE) == ["VOC20", "Context59", "Stuff", "Cityscapes", "ADE20K", "average"]
    assert headings(TABLE.with_datasets(["voc20"])) == ["VOC20"]
    assert headings(find_table("2", miniature=True)) == ["Miniature"]

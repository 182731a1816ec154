"""Which run fills which cell: published runs only, to the last setting."""

from __future__ import annotations

import json

import pytest
from recorded_runs import CLEARCLIP, append_run, evaluation, find_row, make_record

from clearclip.results.cells import fill_row
from clearclip.results.matching import belongs, protocol_of
from clearclip.results.record import parse_record
from clearclip.results.records import read_records
from clearclip.results.table_definitions import find_table

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
    record = parse_record(json.loads(json.dumps({**data, "not_published_because": reasons})))
    assert not belongs(record, CLEARCLIP, "voc20", "clearclip")


def test_the_protocol_of_a_run():
    clip = find_row("background", "CLIP")
    assert protocol_of(make_record("voc21", row=clip)) == "clearclip", "with the threshold of its own"
    assert protocol_of(make_record("voc21", model__prob_thd=0.2)) == "other"
    assert protocol_of(make_record(failures={"a.jpg": "cut short"})) == "clearclip, images skipped"


def test_miniature_rows_belong_to_the_bundled_weights():
    row = find_row("2", "CLIP + ClearCLIP", miniature=True)
    assert row.vit == "Miniature/8"
    assert belongs(make_record("miniature", row=row), row, "miniature", "clearclip")
    for changes in (dict(weights__origin="file"), dict(dataset__images="0"), dict(dataset__masks="0")):
        assert not belongs(make_record("miniature", row=row, **changes), row, "miniature", "clearclip")


def test_backbones_have_the_normalisation_of_their_weights():
    row = find_row("backbones", "webli + ClearCLIP", "ViT-B-16-SigLIP")
    weights = dict(weights__model=row.vit, weights__tag=row.name, weights__clip_type=None, weights__vit_type=None)
    record = make_record("voc20", 500, model__normalization="pretrained", **weights)
    assert belongs(record, row, "voc20", "clearclip")
    # What fills a cell is listed under the cell's protocol.
    assert protocol_of(record) == "clearclip"
    assert protocol_of(make_record("voc20", 500, model__normalization="pretrained")) == "other"
    assert not belongs(make_record("voc20", 500, weights__model="m", weights__tag=row.name), row, "voc20", "clearclip")

"""Why a run is in a table or in none: each deviation is named with both values, and only it."""

from __future__ import annotations

import json

import pytest
from recorded_runs import append_run, evaluation, find_row, make_record

from clearclip.results.explanation import explain, explanation_lines, nearest_cell, reasons_against_tables
from clearclip.results.protocols import protocols
from clearclip.results.record import EARLIER_VERSION, parse_record
from clearclip.results.records import read_records
from clearclip.results.table_definitions import find_table

LOAD, ANNOTATIONS, PACK = ({"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))
RESIZE = {"type": "Resize", "scale": [2048, 336], "keep_ratio": True}
NACLIP_WORDS = "3c3dd4f07dc0edbafc9378fbf70d114c"
#: Twenty-four deviations, one each → the reason that is given, and the trap that it is.
DEVIATIONS = {
    "threshold of vanilla CLIP": (
        dict(model__prob_thd=0.2),
        "model.prob_thd is 0.2, published 0.5",
        "threshold of another row",
    ),
    "no threshold": (dict(model__prob_thd=0.0), "model.prob_thd is 0.0, published 0.5", "threshold left out"),
    "some threshold": (dict(model__prob_thd=0.3), "model.prob_thd is 0.3, published 0.5", None),
    "words": (
        dict(model__words=NACLIP_WORDS),
        "words is those of cls_voc21_naclip.txt, published those of cls_voc21.txt",
        "class words",
    ),
    "own words": (
        dict(model__words="0"),
        "words is words of your own, published those of cls_voc21.txt",
        "class words",
    ),
    "short side": (
        dict(input__pipeline=[LOAD, RESIZE, ANNOTATIONS, PACK]),
        "resize is 2048x336, published 2048x448",
        "input size",
    ),
    "no resize": (
        dict(input__pipeline=[LOAD, ANNOTATIONS, PACK]),
        "resize is not set, published 2048x448",
        "input size",
    ),
    "stride": (dict(model__slide_stride=112), "model.slide_stride is 112, published 224", "windows"),
    "window": (dict(model__slide_crop=224), "model.slide_crop is 224, published 448", "windows"),
    "whole image": (dict(model__slide_crop=0), "model.slide_crop is 0, published 448", "windows"),
    "scale": (dict(model__logit_scale=40.0), "model.logit_scale is 40.0, published 50", "temperature"),
    "PAMR": (dict(model__post="pamr"), "model.post is pamr, published not set", "refinement added or left out"),
    "areas": (dict(model__area_thd=0.1), "model.area_thd is 0.1, published not set", "small classes dropped"),
    "normalisation": (
        dict(model__normalization="pretrained"),
        "model.normalization is pretrained, published not set",
        "normalisation",
    ),
    "bf16": (dict(environment__precision="bf16"), "precision is bf16, published fp16 or fp32", "precision"),
    "some images": (dict(dataset__count=100), "images is 100, published 1449", "part of the images"),
    "another conversion": (
        dict(dataset__labels="01"),
        "dataset.labels is 01, published not set",
        None,
    ),
    "ignored label": (dict(dataset__ignore_index=0), "dataset.ignore_index is 0, published 255", None),
    "zero label": (
        dict(dataset__reduce_zero_label=True),
        "dataset.reduce_zero_label is True, published False",
        "zero label",
    ),
    "20 classes": (dict(dataset__classes=20), "dataset.classes is 20, published 21", "number of classes"),
    "weights of a file": (
        dict(weights__origin="file", weights__clip_type=None, weights__vit_type=None),
        "weights is m t (file), published CLIP ViT-B/16",
        None,
    ),
    "random weights": (
        dict(weights__origin="random"),
        "weights is CLIP ViT-B/16 (random), published CLIP ViT-B/16",
        None,
    ),
    "alpha": (
        dict(method__label="ClearCLIP (alpha=2)", weights__origin="published", environment__device="cuda"),
        None,
        None,
    ),
    "a hook": (dict(other__hooks=["EMAHook"]), "other.hooks is ['EMAHook'], published not set", None),
}


@pytest.mark.parametrize(("changes", "reason", "trap"), DEVIATIONS.values(), ids=[*DEVIATIONS])
def test_one_deviation_is_named_and_only_it(changes, reason, trap):
    record = make_record("voc21", 123, **changes)
    assert reasons_against_tables(record) == ([reason] if reason else []), "options of one's own are a row of one's own"
    explanation = explain(record)
    assert [found.trap for found in explanation.settings_traps] == ([trap] if trap else [])
    text = "\n".join(explanation_lines(explanation))
    assert reason is None or reason in text
    assert len(text.splitlines()) <= 24, "one screen"


def test_a_published_run_says_so():
    for dataset in find_table("benchmarks").datasets:
        record = make_record(dataset, 123)
        assert reasons_against_tables(record) == []
        lines = explanation_lines(explain(record))
        assert "every setting is the published one" in lines
        assert lines[1].startswith("in the table: benchmarks, ViT-B/16 CLIP + ClearCLIP, protocol clearclip")


@pytest.mark.parametrize("protocol", sorted({name for name, _ in protocols()}))
def test_a_run_by_any_protocol_is_in_its_table(protocol):
    datasets = [dataset for name, dataset in protocols() if name == protocol and dataset != "miniature"]
    for dataset in datasets:
        if protocols()[protocol, dataset].images is None:
            continue
        table = "family" if dataset in find_table("family").datasets else "remote"
        if dataset in find_table("large").datasets:
            table = "large"
        row = next(row for row in find_table(table).rows if row.vit == "ViT-B/16")
        assert reasons_against_tables(make_record(dataset, 123, row, protocol)) == []


def test_a_run_that_is_nobodys_is_compared_with_the_papers_protocol():
    """Two settings away from ClearCLIP's, one from ProxyCLIP's: whoever runs the bundled configs means the first."""
    record = make_record("ade20k", model__slide_stride=112, model__logit_scale=40)
    assert reasons_against_tables(record) == [
        "model.slide_stride is 112, published 224",
        "model.logit_scale is 40, published 50",
    ]
    record = make_record("voc21", 100, find_row("family", "NACLIP"), "naclip", model__prob_thd=0.2)
    assert reasons_against_tables(record) == ["model.prob_thd is 0.2, published 0.1 by naclip's protocol"]


def test_what_the_record_itself_says_comes_first():
    data = json.loads(json.dumps(evaluation(model__prob_thd=0.2, failures={"a": "b"}).record))
    record = parse_record({**data, "not_published_because": ["own code was imported: x.py"]})
    assert reasons_against_tables(record) == [
        "own code was imported: x.py",
        "an image was skipped",
        "model.prob_thd is 0.2, published 0",
    ]


def test_records_that_are_only_listed():
    old = parse_record({"dataset": "voc20", "method": "ClearCLIP", "mIoU": 5})
    assert reasons_against_tables(old) == [EARLIER_VERSION]
    assert explain(old).comparison is None
    assert explanation_lines(explain(old))


def test_a_dataset_of_the_users_own():
    run = evaluation()
    run.facts["dataset"]["name"] = "my photos"
    record = parse_record(json.loads(json.dumps(run.record)))
    assert nearest_cell(record) is None
    assert reasons_against_tables(record) == ["no table has the dataset my photos"]


@pytest.mark.parametrize(
    ("dataset", "system", "miou", "trap"),
    [
        ("voc21", "CLIP + ClearCLIP", 34.8, "class words"),
        ("voc21", "CLIP", 10.2, "threshold left out"),
        ("voc21", "SCLIP", 35.7, "class words"),
    ],
)
def test_a_number_that_looks_like_a_known_trap(tmp_path, dataset, system, miou, trap):
    """Though every setting is said to be the published one."""
    path = tmp_path / "results.xlsx"
    append_run(path, dataset, row=find_row("background", system))
    (record,), _ = read_records(path)
    record = parse_record({**record.to_json(), "mIoU": miou})
    explanation = explain(record)
    assert explanation.reasons == []
    assert [found.trap for found in explanation.number_traps] == [trap]
    assert any("its number looks like that of a known trap" in line for line in explanation_lines(explanation))


def test_the_release_without_its_options(tmp_path):
    """The authors' defaults: q-k attention without residual; ADE20K 9.13."""
    row = find_row("ablation", "qk, no residual, no FFN")
    record = parse_record({**make_record("ade20k", row=row).to_json(), "mIoU": 9.13})
    explanation = explain(record)
    assert explanation.reasons == [], "a row of the ablation"
    (trap,) = explanation.number_traps
    assert (trap.right_miou, trap.source) == (16.7, "mc-lan/ClearCLIP, issue 3")

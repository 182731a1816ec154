"""Records, tables, workbook and published figures."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
from itertools import product
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import openpyxl
import pytest
from layouts import LAYOUTS, make_layout

from clearclip import UserError
from clearclip.commands.table_run import plan
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.facts import run_facts
from clearclip.evaluation.metric import Evaluation, Scores
from clearclip.methods import ATTENTIONS, build_method
from clearclip.model_settings import ModelSettings
from clearclip.results.published import (
    BENCHMARKS,
    MINIATURE_VIT,
    TABLES,
    WITHOUT_BACKGROUND,
    find_protocol,
    numbers,
    protocols,
    published,
    select_rows,
    table_rows,
)
from clearclip.results.records import append, read_records, records_path
from clearclip.results.tables import belongs, fill_row, protocol_of, to_markdown
from clearclip.results.workbook import update_workbook
from clearclip.utils.devices import choose_device

ROOT = Path(__file__).resolve().parents[1]
ROWS = {(row.vit, row.name, row.clearclip): row for row in table_rows("2")}
CLEARCLIP = ROWS["ViT-B/16", "CLIP", "yes"]
PAPER = {
    ("ViT-B/16", "CLIP", "no"): (41.8, 9.2, 4.4, 5.5, 2.1, 12.6),
    ("ViT-B/16", "CLIP", "yes"): (80.9, 35.9, 23.9, 30.0, 16.7, 37.5),
    ("ViT-L/14", "GEM", "yes"): (79.7, 29.9, 19.4, 25.9, 14.2, 33.8),
    ("ViT-B/16", "MaskCLIP", "yes"): (61.4, 28.3, 18.4, 24.7, 13.6, 29.5),
}


def facts_of(dataset: str, row=CLEARCLIP, protocol: str = "clearclip", **changes: Any) -> dict[str, Any]:
    """The facts of a complete run by a protocol, but for ``changes``: part__name=value."""
    one, threshold = find_protocol(protocol, dataset), row.prob_thd(dataset)
    images, _, masks = one.data.partition(" ")
    resize = [{"type": "Resize", "scale": one.scale, "keep_ratio": True}] if one.scale else []
    steps = [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
    facts = {
        "dataset": {"name": dataset, "count": one.images, "classes": one.classes, "ignore_index": one.ignore_index,
                    "reduce_zero_label": one.reduce_zero_label, "images": images, "masks": masks,
                    **({"label_map": one.labels} if one.labels else {})},
        "input": {"pipeline": [steps[0], *resize, *steps[1:]]},
        "model": {"words": one.words, "slide_crop": one.crop, "slide_stride": one.stride, "post": one.post,
                  "logit_scale": one.logit_scale, "prob_thd": one.prob_thd if threshold is None else threshold,
                  **one.model_options},
        "other": {},
        "weights": {"clip_type": row.clip_type, "vit_type": row.vit, "model": "m", "tag": "t", "origin": "published"},
        "method": {"label": row.label},
        "code": "1",
        "environment": {"device": "cpu", "precision": "fp32"},
    }  # fmt: skip
    for name, value in changes.items():
        part, _, key = name.partition("__")
        facts[part] = {**facts[part], key: value}
    return facts


def evaluation(dataset: str = "voc20", hits: int = 809, row=CLEARCLIP, protocol="clearclip", failures=(), **changes):
    """An evaluation of two classes with mIoU hits / 20, by a protocol but for ``changes``."""
    confusion = np.array([[hits, 1000 - hits], [0, 0]]) if hits < 1000 else np.array([[1000, 0], [0, 0]])
    names = dict(classes=["a", "b"], scores=Scores(confusion), images=10, failures=dict(failures), seconds=2)
    return Evaluation(**names, images_per_second=5, facts=facts_of(dataset, row, protocol, **changes))


def record(path: Path, *arguments: Any, **options: Any) -> None:
    append([evaluation(*arguments, **options).record], path)


def test_published_numbers_are_the_papers():
    assert len(ROWS) == 28
    for key, values in PAPER.items():
        got = [published("2", ROWS[key], name, "clearclip") for name in (*WITHOUT_BACKGROUND, "average")]
        assert tuple(value for value, _ in got) == values
    cells = [
        published("2", row, name, "clearclip") for row in ROWS.values() for name in (*WITHOUT_BACKGROUND, "average")
    ]
    assert len(cells) == 168
    assert None not in cells
    assert all(source for _, source in numbers().values())
    assert all(cell.rerun for cell in fill_row("benchmarks", CLEARCLIP, BENCHMARKS, [], "clearclip"))


def test_averages_of_the_paper():
    """Every printed average is the mean of its row to rounding, but for the two that are known not to be."""
    wrong = set()
    for row in ROWS.values():
        cells = [published("2", row, name, "clearclip")[0] for name in WITHOUT_BACKGROUND]
        if abs(fmean(cells) - published("2", row, "average", "clearclip")[0]) > 0.06:
            wrong.add((row.vit, row.system))
    assert {("ViT-B/16", "MaskCLIP + ClearCLIP"), ("ViT-B/16", "SCLIP + ClearCLIP")} <= wrong
    assert len(wrong) <= 3


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("miniature", [False, True])
def test_rows_are_known_by_the_label_of_the_method_that_they_compute(table, miniature):
    rows = table_rows(table, miniature)
    assert {row.label: build_method(row.method).label for row in rows} == {row.label: row.label for row in rows}
    ablation = [build_method(row.method) for row in table_rows("ablation", miniature)]
    switches = [(one.attention, one.residual, one.ffn) for one in ablation]
    every = list(product(ATTENTIONS, (True, False), (True, False)))
    assert sorted(switches) == sorted(every * (1 if miniature else 2))


def test_a_protocols_options_of_methods_are_in_their_labels():
    for one in protocols().values():
        for row in table_rows("family"):
            assert build_method(row.method).with_options(one.options).label == one.label(row.label)
        known = {part for row in table_rows("family") for part in row.label.split(" + ")}
        assert set(one.methods) <= known


@pytest.mark.parametrize("dataset", [*sorted(LAYOUTS)])
def test_configs_are_the_published_protocols(dataset, tmp_path):
    """A config makes a published run, but for the number of images here; one setting changed, and it does not."""
    made = make_layout(dataset, tmp_path, images=2)
    row = select_rows("2", miniature=dataset == "miniature", names=["CLIP + ClearCLIP"])[0]
    root = {"test_dataloader.dataset.data_root": str(made["data_root"])}
    for protocol in [name for name, one in protocols() if one == dataset]:
        (group,) = plan([row], [dataset], root, protocol=protocol)

        one = find_protocol(protocol, dataset)

        def facts(group=group, one=one, **options):
            checked = CheckedDataset(group.cfg.test_dataloader.dataset)
            settings = ModelSettings.from_options({**vars_of(group.settings), **options})
            found = run_facts(group.cfg, checked, settings, choose_device("cpu"), "fp32")
            assert found["dataset"]["count"] == 2
            found["dataset"]["count"] = one.images
            if one.data:
                found["dataset"]["images"], found["dataset"]["masks"] = one.data.split()
            return found

        assert one.matches(facts())
        assert not one.matches(facts(logit_scale=41.0))
        assert not one.matches(facts(normalization="pretrained"))


def test_the_miniature_is_its_published_protocol():
    """The bundled scenes, masks and weights, to the last byte."""
    (group,) = plan(select_rows("2", True, ["CLIP + ClearCLIP"]), ("miniature",), {})
    checked = CheckedDataset(group.cfg.test_dataloader.dataset)
    facts = run_facts(group.cfg, checked, group.settings, choose_device("cpu"), "fp32")
    assert find_protocol("clearclip", "miniature").matches(facts)
    assert facts["weights"]["origin"] == "published"


def vars_of(settings: ModelSettings) -> dict[str, Any]:
    return {name: value for name, value in vars(settings).items() if name in ModelSettings.__dataclass_fields__}


def test_cells_show_published_runs_only(tmp_path):
    path = tmp_path / "results.xlsx"
    for number, name in enumerate(WITHOUT_BACKGROUND):
        record(path, name, 800 + 10 * number)
    record(path, "voc20", 100, ROWS["ViT-B/16", "CLIP", "no"])
    record(path, "voc20", 400, ROWS["ViT-B/16", "OpenCLIP", "yes"])
    for changes in (
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
        dict(dataset__label_map="0123"),
        dict(dataset__source="0123"),
        dict(dataset__reduce_zero_label=False),
    ):
        record(path, "voc20", 300, **changes)
    record(path, "voc20", 300, failures={"broken.jpg": "cut short"})
    records, remarks = read_records(path)
    assert remarks == []

    def measured(*key):
        return [cell.measured for cell in fill_row("2", ROWS[key], WITHOUT_BACKGROUND, records, "clearclip")]

    # Two classes, one of which is never true: mIoU is half of the first one's.
    assert measured("ViT-B/16", "CLIP", "yes") == pytest.approx([40, 40.5, 41, 41.5, 42, 41])
    assert measured("ViT-B/16", "CLIP", "no") == [pytest.approx(5)] + [None] * 5
    assert measured("ViT-B/16", "OpenCLIP", "yes")[0] == pytest.approx(20)
    assert measured("ViT-L/14", "CLIP", "yes") == [None] * 6
    text = to_markdown("2", [CLEARCLIP], WITHOUT_BACKGROUND, records, "clearclip")
    assert "| ViT-B/16 | CLIP | yes | 40.0 (80.9) | 40.5 (35.9) |" in text
    # By the user's word only: shown, and marked.
    record(path, "voc20", 600, weights__origin="stated")
    text = to_markdown("2", [CLEARCLIP], WITHOUT_BACKGROUND, read_records(path)[0], "clearclip")
    assert "| 30.0* (80.9) |" in text
    assert "weights as stated by the user" in text


def test_published_numbers_stay_with_their_protocol(tmp_path):
    """NACLIP's own figures stand beside a run by NACLIP's protocol only, and ClearCLIP's beside one by ClearCLIP's."""
    path = tmp_path / "results.xlsx"
    rows = {row.name: row for row in table_rows("family") if row.vit == "ViT-B/16"}
    record(path, "voc21", 800, rows["NACLIP"])
    record(path, "voc21", 900, rows["NACLIP"], "naclip")
    record(path, "voc21", 700, rows["NACLIP"], "resclip")
    records, _ = read_records(path)

    def cell(name, protocol):
        (one,) = fill_row("family", rows[name], ("voc21",), records, protocol)
        return one.measured, one.published

    assert cell("NACLIP", "clearclip") == (40, None)
    assert cell("NACLIP", "naclip") == (45, 64.07)
    assert cell("NACLIP", "resclip") == (35, 58.9)
    assert cell("ClearCLIP", "clearclip") == (None, 51.8)
    assert cell("ClearCLIP", "naclip") == (None, None)
    assert cell("CLIP", "clearclip") == (None, None), "it was published with a threshold of its own"
    assert published("family", rows["GEM"], "voc20", "clearclip")[0] == 79.9
    assert [protocol_of(one) for one in records] == ["clearclip", "naclip", "resclip"]
    assert update_workbook(path)
    lines = list(openpyxl.load_workbook(path)["family, naclip"].values)
    line = next(line for line in lines if line[1] == "NACLIP")
    assert line[3:6] == (45, 64.07, pytest.approx(-19.07))


def test_workbook(tmp_path):
    """Title, unit, notes; titles as papers have them; what was not measured or published is said; rounded once."""
    path = tmp_path / "results.xlsx"
    record(path, "voc20", 900)
    record(path, "ade20k", 335)
    record(path, "ade20k", 999, weights__origin="random")
    assert update_workbook(path)
    book = openpyxl.load_workbook(path)
    assert book.sheetnames[0] == "runs"
    header, *runs = list(book["runs"].values)[1:]
    assert [line[header.index("dataset")] for line in runs] == ["VOC20", "ADE20K", "ADE20K"]
    assert [line[header.index("protocol")] for line in runs] == ["clearclip"] * 3
    assert runs[0][header.index("mIoU")] == pytest.approx(45)
    assert runs[2][header.index("weights: origin")] == "random"
    sheet = book["table 2"]
    assert "mIoU, %" in sheet["A1"].value
    assert (sheet.page_setup.orientation, sheet.page_setup.fitToWidth) == ("landscape", 1)
    line = next(row for row in sheet.iter_rows(min_row=4) if [c.value for c in row[:3]] == ["ViT-B/16", "CLIP", "yes"])
    assert [cell.value for cell in line[3:7]] == [45, 80.9, 80.93, pytest.approx(-35.9)]
    assert [cell.value for cell in sheet[3][3:7]] == ["here", "publ.", "re-run", "diff."]
    assert line[6].fill.fgColor.rgb.endswith("F6C9A8")
    ade = [cell.value for cell in sheet[2]].index("ADE20K")
    assert [cell.value for cell in line[ade : ade + 4]] == [pytest.approx(16.75), 16.7, 16.64, pytest.approx(0.05)]
    assert line[ade + 3].fill.fill_type is None
    assert line[7].value == "–"
    assert any("ClearCLIP (ECCV 2024)" in str(row[0]) for row in sheet.values)
    classes = [row[:2] for row in book["IoU VOC20"].values]
    assert classes[1:6] == [
        ("method", "ClearCLIP"),
        ("weights", "CLIP ViT-B/16"),
        ("protocol", "clearclip"),
        ("a", 90),
        ("b", 0),
    ]


def test_classes_are_known_by_their_place(tmp_path):
    """Two classes of one name are two lines; what no cell can hold is replaced."""
    path = tmp_path / "results.xlsx"
    found = evaluation()
    found.classes = ["other\x07", "other\x07"]
    found.facts["dataset"]["name"] = "mine/of: [all]"
    append([found.record], path)
    assert update_workbook(path)
    book = openpyxl.load_workbook(path)
    (name,) = [name for name in book.sheetnames if name.startswith("IoU")]
    assert [row[:2] for row in book[name].values][4:6] == [("other�", pytest.approx(80.9)), ("other�", 0)]


def _record_some(path: Path, number: int, both: Barrier) -> None:
    both.wait()
    for index in range(5):
        record(path, hits=100 * number + index)
        update_workbook(path)


def test_two_evaluations_at_once_both_arrive(tmp_path):
    path = tmp_path / "results.xlsx"
    context = multiprocessing.get_context("spawn")
    both = context.Barrier(2)
    process = context.Process(target=_record_some, args=(path, 1, both))
    process.start()
    _record_some(path, 2, both)
    process.join()
    assert process.exitcode == 0
    assert len(read_records(path)[0]) == 10
    assert openpyxl.load_workbook(path)["runs"].max_row == 12


@pytest.mark.parametrize("fault", ["damaged", "read-only", "left over"])
def test_a_workbook_in_trouble_costs_no_result(tmp_path, fault):
    path = tmp_path / "results.xlsx"
    record(path, hits=100)
    update_workbook(path)
    record(path, hits=200)
    if fault == "damaged":
        path.write_bytes(b"no workbook")
        (tmp_path / "results.before.xlsx").write_bytes(b"an earlier one")
        with pytest.warns(UserWarning, match=r"kept as .*results\.before2\.xlsx"):
            assert update_workbook(path)
        assert (tmp_path / "results.before.xlsx").read_bytes() == b"an earlier one"
        assert (tmp_path / "results.before2.xlsx").read_bytes() == b"no workbook"
    elif fault == "read-only":
        path.chmod(0o444)
        with pytest.warns(UserWarning, match="read-only.*records are safe"):
            assert not update_workbook(path)
        assert openpyxl.load_workbook(path)["runs"].max_row == 3
        path.chmod(0o644)
    else:  # by a process that was killed between records and workbook
        (tmp_path / ".results-abc.xlsx").write_bytes(b"half")
    assert update_workbook(path)
    assert [one["mIoU"] for one in read_records(path)[0]] == pytest.approx([5, 10])
    assert openpyxl.load_workbook(path)["runs"].max_row == 4
    assert not list(tmp_path.glob(".results-*.xlsx"))


@pytest.mark.parametrize("what", ["results.xlsx", "results.jsonl", "results.xlsx.lock"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "link to itself"])
def test_no_place_for_results_is_said_before_the_run(tmp_path, what, kind):
    place = tmp_path / what
    {"folder": place.mkdir, "fifo": lambda: os.mkfifo(place), "link to itself": lambda: place.symlink_to(place)}[kind]()
    with pytest.raises(UserError, match=r"--results"):
        append([evaluation().record], tmp_path / "results.xlsx")


def test_a_line_in_trouble_costs_only_itself(tmp_path):
    """Cut short, no JSON, Latin-1, of an earlier version, changed by hand, facts of another kind: named, not shown."""
    path = tmp_path / "results.xlsx"
    record(path, hits=100)
    whole = records_path(path).read_text()
    line = json.loads(whole)
    changed, strange = copy.deepcopy(line), copy.deepcopy(line)
    changed["mIoU"] = 99.0
    strange["facts"] = [1, 2]
    old = {"time": "x", "dataset": "voc20", "method": "ClearCLIP", "mIoU": 80.9, "settings": {"clip_type": "CLIP"}}
    unicode_name = copy.deepcopy(evaluation(hits=300).record)
    unicode_name["classes"] = ["line\u2028separator", "b"]
    lines = [json.dumps(one).encode() for one in (changed, strange, old, ["a", "list"], {"mIoU": "80"}, {})]
    records_path(path).write_bytes(
        b"\n".join([whole.encode().strip(), *lines, b"{no json", "{'é'}".encode("latin-1"), whole.encode()[:70]])
    )
    append([unicode_name], path)
    records, remarks = read_records(path)
    assert [one["mIoU"] for one in records if not one.get("remark")] == pytest.approx([5, 15])
    assert sum("damaged" in remark for remark in remarks) == 6
    assert sum("changed after it was recorded" in remark for remark in remarks) == 1
    assert sum("earlier version" in remark for remark in remarks) == 2
    assert fill_row("2", CLEARCLIP, ("voc20",), records, "clearclip")[0].measured == pytest.approx(15)
    assert update_workbook(path)
    shown = [str(row[0]) for row in openpyxl.load_workbook(path)["runs"].values]
    assert sum("results.jsonl, line" in text for text in shown) == len(remarks)


def test_the_users_own_sheets_stay(tmp_path):
    path = tmp_path / "results.xlsx"
    book = openpyxl.Workbook()
    book.active.title, book.active["A1"] = "runs", "mine"
    book.create_sheet("notes")["B2"] = "mine, too"
    book.save(path)
    for hits in (100, 200):
        record(path, hits=hits)
        assert update_workbook(path)
    book = openpyxl.load_workbook(path)
    assert (book["runs"]["A1"].value, book["notes"]["B2"].value) == ("mine", "mine, too")
    (ours,) = [name for name in book.sheetnames if name.startswith("runs") and name != "runs"]
    assert book[ours].max_row == 4
    assert len(book.sheetnames) == len(set(book.sheetnames))


def test_miniature_rows_belong_to_the_bundled_weights(tmp_path):
    (row,) = select_rows("2", True, ["CLIP + ClearCLIP"])
    assert row.vit == MINIATURE_VIT
    good = evaluation("miniature", row=row).record
    assert belongs(good, row, "miniature", "clearclip")
    for changes in (dict(weights__origin="file"), dict(dataset__images="0"), dict(dataset__masks="0")):
        assert not belongs(evaluation("miniature", row=row, **changes).record, row, "miniature", "clearclip")

"""The paper's eight benchmarks: files as their publishers name them, evaluated, with mIoU by NumPy."""

from __future__ import annotations

import pytest
from conftest import rows_of
from layouts import LAYOUTS, make_layout
from numpy_scores import mean_iou
from quick_runs import ROOT, config, predict, quick

from clearclip.commands.eval import eval_command
from clearclip.evaluation.config import load_config


@pytest.mark.parametrize("name", LAYOUTS)
def test_benchmark(name, tmp_path, quick_name):
    made = make_layout(name, tmp_path, images=2)
    results = tmp_path / "results.xlsx"
    arguments = ["--config", config(name), "--workdir", str(tmp_path / "work"), "--results", str(results)]
    assert eval_command([*arguments, "--data-root", str(made["data_root"]), "--workers", "0", *quick(quick_name)]) == 0

    (row,) = rows_of(results)
    predictions = predict(name, quick_name, made["images"])
    assert row["mIoU"] == pytest.approx(mean_iou(made["labels"], predictions, made["num_classes"]), abs=1e-3)
    assert row["images"] == 2
    assert row["dataset"] == name
    assert len(row["iou"]) == made["num_classes"]
    assert results.is_file()


def test_thresholds_of_the_protocol():
    wanted = {"voc21": 0.5, "context60": 0.15, "coco_object": 0.4}
    for name in LAYOUTS:
        model = load_config(config(name)).model
        assert model.get("prob_thd", 0) == wanted.get(name, 0)
        assert (model.slide_crop, model.slide_stride) == ((224, 224) if name == "city_scapes" else (448, 224))
        assert (model.get("model_type"), model.get("ignore_residual")) == ("ClearCLIP", True)


def test_class_words_are_those_of_the_protocol():
    def words(name):
        return (ROOT / "config" / f"cls_{name}.txt").read_text().splitlines()

    assert words("voc21")[0] == "background"
    assert (words("voc21")[4], words("voc21")[11]) == ("ship", "table")
    assert words("voc20") == words("voc21")[1:]
    assert "trafficlight" in words("city_scapes")
    assert "chestofdrawers" in words("ade20k")
    assert not any(" " in word for word in words("ade20k") + words("city_scapes") + words("coco_stuff164k"))
    assert "traffic light" in words("coco_object")
    counts = [len(words(name)) for name in sorted(LAYOUTS)]
    assert dict(zip(sorted(LAYOUTS), counts, strict=True)) == {
        "ade20k": 150,
        "city_scapes": 19,
        "coco_object": 81,
        "coco_stuff164k": 171,
        "context59": 59,
        "context60": 60,
        "voc20": 20,
        "voc21": 21,
    }

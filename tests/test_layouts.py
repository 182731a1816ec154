"""The eight benchmarks in miniature, read through MMSegmentation's registry, against ground truth made with NumPy."""

import os
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, make_layout
from mmengine.config import Config
from mmseg.registry import DATASETS

CONFIG = Path(__file__).resolve().parents[1] / "config"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", CONFIG.parents[1] / "shared" / "real_samples"))


def build(name: str, data_root: Path):
    """The config's own dataset at another root, with images as they are and the ground truth."""
    config = dict(Config.fromfile(CONFIG / f"cfg_{name}.py").test_dataloader.dataset)
    config["data_root"] = str(data_root)
    config["pipeline"] = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", _scope_="mmseg")]
    return DATASETS.build(config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_ground_truth_is_what_the_files_mean(name, tmp_path):
    made = make_layout(name, tmp_path, images=4, seed=1)
    dataset = build(name, made["data_root"])

    assert len(dataset) == 4
    assert len(dataset.metainfo["classes"]) == made["num_classes"]
    for loaded, image, mask, labels in zip(dataset, made["images"], made["masks"], made["labels"], strict=True):
        assert Path(loaded["img_path"]) == image
        assert Path(loaded["seg_map_path"]) == mask
        assert loaded["img"].shape == (*labels.shape, 3)
        np.testing.assert_array_equal(loaded["gt_seg_map"], labels)
        assert set(np.unique(labels)) <= {*range(made["num_classes"]), 255}


@pytest.mark.parametrize("name", LAYOUTS)
def test_defaults_are_the_documented_folders(name, tmp_path):
    config = Config.fromfile(CONFIG / f"cfg_{name}.py")
    made = make_layout(name, tmp_path / "data", images=1)
    assert tmp_path / config.test_dataloader.dataset.data_root == made["data_root"]
    assert config.dataset_name == name


def test_first_and_last_class_arrive_where_they_should(tmp_path):
    # Written out by hand: id in the file and label after loading, for the corners of random_mask.
    corners = {
        "voc21": [(0, 0), (1, 1), (20, 20), (255, 255)],
        "voc20": [(0, 255), (1, 0), (20, 19), (255, 255)],
        "context60": [(0, 0), (1, 1), (59, 59), (59, 59)],
        "context59": [(0, 255), (1, 0), (59, 58), (59, 58)],
        "coco_object": [(0, 0), (1, 1), (80, 80), (80, 80)],
        "coco_stuff164k": [(0, 0), (1, 1), (170, 170), (255, 255)],
        "city_scapes": [(0, 0), (1, 1), (18, 18), (255, 255)],
        "ade20k": [(0, 255), (1, 0), (150, 149), (150, 149)],
    }
    assert set(corners) == set(LAYOUTS)
    for name, pairs in corners.items():
        made = make_layout(name, tmp_path / name, images=1)
        loaded = build(name, made["data_root"])[0]["gt_seg_map"]
        assert made["raw"][0][0, :4].tolist() == [raw for raw, _ in pairs], name
        assert loaded[0, :4].tolist() == [label for _, label in pairs], name


@pytest.mark.parametrize("name", ["voc20", "context59", "ade20k"])
def test_background_is_ignored_also_where_the_config_is_silent(name, tmp_path):
    made = make_layout(name, tmp_path, images=1)
    config = dict(Config.fromfile(CONFIG / f"cfg_{name}.py").test_dataloader.dataset)
    del config["reduce_zero_label"]
    config.update(data_root=str(made["data_root"]), pipeline=[dict(type="LoadAnnotations", _scope_="mmseg")])
    np.testing.assert_array_equal(DATASETS.build(config)[0]["gt_seg_map"], made["labels"][0])


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
@pytest.mark.parametrize(
    "name, folder, ids",
    [
        ("voc21", "voc2012", {0, 5, 8, 12, 15, 18, 20, 255}),
        ("voc20", "voc2012", {4, 7, 11, 14, 17, 19, 255}),
        ("ade20k", "ade20k", {0, 1, 2, 4, 6, 9, 11, 13, 17, 20, 43, 80, 87, 96, 102, 255}),
    ],
)
def test_real_files(name, folder, ids):
    dataset = build(name, REAL / folder)
    seen = set()
    for loaded in dataset:
        assert loaded["img"].shape[:2] == loaded["gt_seg_map"].shape
        seen |= set(np.unique(loaded["gt_seg_map"]).tolist())
    assert seen == ids

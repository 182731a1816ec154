"""The eight benchmarks in miniature, read through MMSegmentation's registry, against ground truth made with NumPy."""

import os
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, make_layout
from mmengine.config import Config
from mmseg.registry import DATASETS

CONFIG = Path(__file__).resolve().parents[2] / "config"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", CONFIG.parents[1] / "shared" / "real_samples"))
# Written out by hand: id in the file and label after loading, for the first pixels of a mask of each benchmark.
CORNERS = {
    "voc21": [(0, 0), (1, 1), (20, 20), (255, 255)],
    "voc20": [(0, 255), (1, 0), (20, 19), (255, 255)],
    "context60": [(0, 0), (1, 1), (59, 59), (59, 59)],
    "context59": [(0, 255), (1, 0), (59, 58), (59, 58)],
    "coco_object": [(0, 0), (1, 1), (80, 80), (80, 80)],
    "coco_stuff164k": [(0, 0), (1, 1), (170, 170), (255, 255)],
    "city_scapes": [(0, 0), (1, 1), (18, 18), (255, 255)],
    "ade20k": [(0, 255), (1, 0), (150, 149), (150, 149)],
}


def build(name: str, data_root: Path):
    """The config's own dataset at another root, with images as they are and the ground truth."""
    config = dict(Config.fromfile(CONFIG / f"cfg_{name}.py").test_dataloader.dataset)
    steps = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", _scope_="mmseg")]
    config |= dict(data_root=str(data_root), pipeline=steps)
    # Whether label 0 is ignored is the dataset's own knowledge: true also where a config is silent.
    config.pop("reduce_zero_label", None)
    return DATASETS.build(config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_ground_truth_is_what_the_files_mean(name, tmp_path):
    made = make_layout(name, tmp_path / "data", images=4)
    config = Config.fromfile(CONFIG / f"cfg_{name}.py")
    assert tmp_path / config.test_dataloader.dataset.data_root == made["data_root"]
    assert config.dataset_name == name
    dataset = build(name, made["data_root"])
    assert len(dataset) == 4
    assert len(dataset.metainfo["classes"]) == made["num_classes"]
    for loaded, image, mask, raw, labels in zip(
        dataset, *(made[key] for key in ("images", "masks", "raw", "labels")), strict=True
    ):
        assert (Path(loaded["img_path"]), Path(loaded["seg_map_path"])) == (image, mask)
        assert loaded["img"].shape == (*labels.shape, 3)
        np.testing.assert_array_equal(loaded["gt_seg_map"], labels)
        assert [*zip(raw[0, :4], loaded["gt_seg_map"][0, :4], strict=True)] == CORNERS[name]


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
    loaded = list(build(name, REAL / folder))
    assert all(one["img"].shape[:2] == one["gt_seg_map"].shape for one in loaded)
    assert set().union(*(np.unique(one["gt_seg_map"]).tolist() for one in loaded)) == ids

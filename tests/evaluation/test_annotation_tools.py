"""What annotation tools export, read as docs/your_own_data.md says; the check names the tool and the remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from annotation_exports import NAMES, export, some_ids
from mmengine.config import Config
from PIL import Image

from clearclip.evaluation.annotation_tools import likely_tool
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.dataset_report import check_dataset

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Annotation tools") :]
RECIPES = dict(re.findall(r"\n### ([^\n]+)\n.*?```python\n(.*?)```", SECTION, re.DOTALL))
IDS = some_ids()
#: VOC's palette, which Datumaro gives to classes without colours of their own.
COLOURS = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]

#: For each export what the page says to write in the config, and the tool that the check names.
CONFIGS = {
    "datumaro_voc": (
        dict(type="MappedDataset", colours=COLOURS, ann_file="ImageSets/Segmentation/train.txt", img_suffix=".jpg",
             data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass")),
        "Datumaro or CVAT (PASCAL VOC)",
    ),
    "datumaro_voc_ids": (
        dict(ann_file="ImageSets/Segmentation/train.txt", img_suffix=".jpg",
             data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass")),
        "Datumaro or CVAT (PASCAL VOC)",
    ),
    "datumaro_camvid": (
        dict(type="MappedDataset", colours=COLOURS, img_suffix=".jpg",
             data_prefix=dict(img_path="train", seg_map_path="trainannot")),
        "Datumaro or CVAT (CamVid)",
    ),
    "datumaro_cityscapes": (
        dict(img_suffix="_leftImg8bit.png", seg_map_suffix="_gtFine_labelIds.png",
             data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
        "Datumaro (Cityscapes)",
    ),
    "fiftyone": (dict(data_prefix=dict(img_path="data", seg_map_path="labels")), "FiftyOne"),
    "labelme": (dict(data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass")), "labelme"),
}  # fmt: skip
#: Exports whose masks have to be drawn first: the recipe, its folders, and the tool.
DRAWN = {
    "datumaro_panoptic": (
        "COCO panoptic",
        dict(annotations="annotations/panoptic_train.json", segments="annotations/panoptic_train"),
        dict(img_suffix=".jpg", data_prefix=dict(img_path="images/train", seg_map_path="masks")),
        "COCO panoptic",
    ),
    "supervision": (
        "COCO polygons (pycocotools, supervision, CVAT)",
        dict(annotations="annotations.json"),
        dict(data_prefix=dict(img_path="images", seg_map_path="masks")),
        "COCO (polygons)",
    ),
    "label_studio": (
        "Label Studio",
        dict(brush="masks", tasks="tasks.json"),
        dict(data_prefix=dict(img_path="images", seg_map_path="masks_of_classes")),
        "Label Studio (brush)",
    ),
}


def make_config(root: Path, **settings) -> Config:
    steps = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    dataset = dict(type="BaseSegDataset", data_root=str(root), img_suffix=".png", seg_map_suffix=".png", pipeline=steps)
    dataset |= dict(metainfo=dict(classes=NAMES)) | settings
    return Config(dict(model=dict(class_names=list(NAMES)), test_dataloader=dict(dataset=dataset)))


def check_labels(cfg: Config) -> None:
    report = check_dataset(cfg, sample=None)
    assert not report.problems
    dataset = CheckedDataset(cfg.test_dataloader.dataset)
    assert len(dataset) == len(IDS)
    for index, name in enumerate(dataset.file_stems):
        labels = dataset[index]["data_samples"].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(labels, IDS[int(re.search(r"a(\d)", name)[1])])


@pytest.mark.parametrize("name", CONFIGS)
def test_exports_that_a_config_reads(name: str, tmp_path: Path) -> None:
    root = export(name, tmp_path, IDS)
    settings, tool = CONFIGS[name]
    check_labels(make_config(root, **settings))
    assert f"an export of {tool}" in likely_tool(root)
    # Who takes the folder for an ordinary one is told what it is.
    wrong = {key: value for key, value in settings.items() if key not in ("type", "colours")}
    if wrong == settings:
        wrong["seg_map_suffix"] = "_none.png"
    report = check_dataset(make_config(root, **wrong))
    assert report.problems and f"an export of {tool}" in report.remarks[-1]


@pytest.mark.parametrize("name", DRAWN)
def test_exports_whose_masks_are_drawn_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the page's own recipes."""
    recipe, places, settings, tool = DRAWN[name]
    if "pycocotools" in RECIPES[recipe]:
        pytest.importorskip("pycocotools")
    root = export(name, tmp_path, IDS)
    assert f"an export of {tool}" in likely_tool(root)
    monkeypatch.chdir(root)
    code = RECIPES[recipe]
    for variable, place in places.items():
        code, count = re.subn(rf"^{variable} = .*$", f"{variable} = Path({place!r})", code, flags=re.MULTILINE)
        assert count == 1, variable
    exec(compile(code, recipe, "exec"), {})
    check_labels(make_config(root, **settings))


def test_a_camvid_list_of_two_columns_is_told(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for index, ids in enumerate(IDS):
        Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(tmp_path / "train" / f"a{index}.png")
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / "trainannot" / f"a{index}.png")
    lines = [f"/train/a{index}.png trainannot/a{index}.png" for index in range(len(IDS))]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    wrong = make_config(tmp_path, ann_file="train.txt", data_prefix=dict(img_path="train", seg_map_path="trainannot"))
    problem = check_dataset(wrong).problems[0]
    assert "leave ann_file out and give data_prefix=dict(img_path='train', seg_map_path='trainannot')" in problem
    check_labels(make_config(tmp_path, data_prefix=dict(img_path="train", seg_map_path="trainannot")))


def test_folders_of_no_tool(tmp_path: Path) -> None:
    assert likely_tool(tmp_path / "missing") is None
    (tmp_path / "images").mkdir()
    (tmp_path / "notes.json").write_text(json.dumps({"a": 1}))
    assert likely_tool(tmp_path) is None

"""Datasets that nobody here has seen: other labels to ignore, many classes, other files, nested folders."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import random_image
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from openpyxl import load_workbook
from PIL import Image

from clearclip import ClearCLIP
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.dataset_report import check_dataset, quick_check
from clearclip.evaluation.metric import ConfusionMetric
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
CONFIG = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)


def save_pairs(root, folders, suffixes, masks):
    """Masks by name, and a random image for each; ``folders`` and ``suffixes`` of images and masks."""
    rng = np.random.default_rng(1)
    for name, mask in masks.items():
        for folder, suffix, array in zip(folders, suffixes, (random_image(rng, *mask.shape), mask), strict=True):
            path = root / folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def blocks(rng, shape, ids, dtype=np.uint8):
    """A mask of blocks of 5 pixels: any of ``ids``."""
    height, width = shape
    small = rng.choice(np.asarray(ids, dtype), (-(-height // 5), -(-width // 5)))
    return small.repeat(5, 0).repeat(5, 1)[:height, :width]


def mean_iou(pairs, classes, ignore):
    """Class after class, in percent."""
    values = []
    for label in range(classes):
        hit = sum(np.sum((truth == label) & (found == label) & (truth != ignore)) for truth, found in pairs)
        union = sum(np.sum(((truth == label) | (found == label)) & (truth != ignore)) for truth, found in pairs)
        values += [hit / union] if union else []
    return 100 * np.mean(values)


def test_the_page_from_folders_to_a_row(tmp_path, monkeypatch, capsys, quick_name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "config" / "base_config.py", "config")
    Path("config/cfg_camvid.py").write_text(CONFIG)
    assert len(CONFIG.strip().splitlines()) <= 20
    rng = np.random.default_rng(0)
    truths = {name: blocks(rng, (72, 96), range(12)) for name in ("f0", "f1", "night/f0")}
    save_pairs(Path("data/CamVid"), ("test", "testannot"), (".png", ".png"), truths)

    def run(line):
        script, *arguments = line.split()[1:]
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert stop.value.code == 0, capsys.readouterr()
        return capsys.readouterr().out

    check, evaluate = re.search(r"```shell\n(.*?)```", PAGE, re.DOTALL).group(1).strip().splitlines()
    assert "1 of 1 complete" in run(check)
    options = f"model.model_name={quick_name} model.slide_crop=64 model.slide_stride=32"
    run(f"{evaluate} --show-dir shown --device cpu --cfg-options {options}")

    assert sorted(path.name for path in Path("shown").iterdir()) == ["f0.png", "f1.png", "night-f0.png"]
    cfg = Config.fromfile("config/cfg_camvid.py")
    model = ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=64, slide_stride=32)
    found = {name: model.segment(f"data/CamVid/test/{name}.png", cfg.words).labels for name in truths}
    expected = mean_iou([(truths[name], found[name]) for name in truths], 11, 11)
    header, row = list(load_workbook("results.xlsx")["runs"].values)[1:3]
    values = dict(zip(header, row, strict=True))
    assert (values["dataset"], values["images"]) == ("camvid", 3)
    assert values["mIoU"] == pytest.approx(expected, abs=0.006)


def make_config(root, masks, classes, suffixes=(".png", ".png"), **settings):
    """The config of a ``BaseSegDataset`` with these masks, by name, and random images."""
    save_pairs(root, ("images", "masks"), suffixes, masks)
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        **dict(zip(("img_suffix", "seg_map_suffix"), suffixes, strict=True)),
        metainfo=dict(classes=classes),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    )
    dataset |= settings
    return Config(dict(model=dict(class_names=classes), test_dataloader=dict(dataset=dataset)))


def evaluated(cfg, predictions):
    """Scores of these predictions, the images by name; what the files hold is read as an evaluation reads it."""
    dataset = CheckedDataset(cfg.test_dataloader.dataset)
    metric, judge = ConfusionMetric(), IoUMetric(ignore_index=dataset.dataset.ignore_index)
    metric.dataset_meta = judge.dataset_meta = dataset.metainfo
    truths = {}
    for item in dataset:
        sample = item["data_samples"]
        assert sample.failure is None, sample.failure
        name = str(Path(sample.img_path).relative_to(dataset.dataset.data_prefix["img_path"]).with_suffix(""))
        truths[name] = sample.gt_sem_seg.data[0].numpy()
        found = torch.from_numpy(predictions[name].astype(np.int64))[None]
        labels = dict(pred_sem_seg=dict(data=found), gt_sem_seg=dict(data=sample.gt_sem_seg.data))
        output = dict(**labels, img_path=sample.img_path)
        metric.process(None, [output])
        judge.process(None, [output])
    assert truths.keys() == predictions.keys()
    return metric.evaluate(len(dataset)), judge.evaluate(len(dataset)), truths


# What the masks hold, how, and the label of an id.
KINDS = {
    "void_beyond_the_classes": (12, np.uint8, ".png", dict(ignore_index=11), lambda raw: raw),
    "void_among_the_classes": (11, np.uint8, ".png", dict(ignore_index=3), lambda raw: raw),
    "reduced": (12, np.uint8, ".bmp", dict(reduce_zero_label=True), lambda raw: np.where(raw, raw - 1, 255)),
    "reduced_and_void": (13, np.uint8, ".tif", dict(reduce_zero_label=True, ignore_index=11),
                         lambda raw: np.where((raw > 0) & (raw < 12), raw - 1, 11)),
    "300_classes": (300, np.uint16, ".png", dict(ignore_index=65535), lambda raw: raw),
    "300_classes_reduced": (301, np.uint16, ".tif", dict(reduce_zero_label=True, ignore_index=65535),
                            lambda raw: np.where(raw, raw.astype(int) - 1, 65535)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_labels_mean_what_the_dataset_says(kind, tmp_path):
    ids, dtype, suffix, settings, meaning = KINDS[kind]
    classes = 300 if ids > 255 else 11
    rng = np.random.default_rng(2)
    # The same name in different folders, at different depths.
    names = ("a/0001", "b/0001", "b/c/0001", "0001")
    # In the first one there are small ids only.
    masks = {name: blocks(rng, rng.integers(60, 90, 2), range(min(ids, 256 if name == names[0] else ids)), dtype)
             for name in names}  # fmt: skip
    truths = {name: np.asarray(meaning(mask), np.int64) for name, mask in masks.items()}
    predictions = {}
    for name, truth in truths.items():
        wrong = rng.random(truth.shape) < 0.3
        predictions[name] = np.where(wrong, rng.integers(0, classes, truth.shape), np.minimum(truth, classes - 1))
    cfg = make_config(tmp_path, masks, [f"class {n}" for n in range(classes)], (".tif", suffix), **settings)
    report = check_dataset(cfg, sample=None)
    assert not report.problems
    assert report.valid == report.images_with_mask == len(masks)
    ours, judged, read = evaluated(cfg, predictions)
    for name in names:
        np.testing.assert_array_equal(read[name], truths[name])
    ignore = settings.get("ignore_index", 255)
    assert ours["mIoU"] == pytest.approx(mean_iou([(truths[n], predictions[n]) for n in names], classes, ignore))
    # An independent judge, which rounds to two digits.
    for score in ("aAcc", "mIoU", "mAcc"):
        assert ours[score] == pytest.approx(judged[score], abs=0.006)


def test_some_of_a_dataset_s_classes(tmp_path):
    """The others are ignored, under the dataset's own index."""
    masks = {"one": np.array([[0, 8, 12, 0], [15, 15, 1, 20]], np.uint8)}
    changes = dict(type="PascalVOCDataset", ann_file="list.txt", ignore_index=2)
    cfg = make_config(tmp_path, masks, ["person", "cat"], (".jpg", ".png"), **changes)
    (tmp_path / "list.txt").write_text("one\n")
    assert quick_check(cfg) == []
    _, _, truths = evaluated(cfg, {"one": np.zeros((2, 4), int)})
    assert truths["one"].tolist() == [[2, 1, 2, 2], [0, 0, 2, 2]]


def test_labels_that_the_dataset_does_not_know_are_an_error(tmp_path):
    cfg = make_config(tmp_path, {"one": np.full((20, 30), 11, np.uint8)}, [f"class {n}" for n in range(11)])
    with pytest.raises(UserError, match=r"one\.png has id\(s\) \[11\], which are neither a class nor ignored"):
        quick_check(cfg)
    item = CheckedDataset(cfg.test_dataloader.dataset)[0]
    assert "one.png has id(s) [11]" in item["data_samples"].failure
    # In MMSegmentation's own loop nothing checks the data before.
    metric = ConfusionMetric()
    metric.dataset_meta = dict(classes=["sky", "road"])
    truth, prediction = dict(data=torch.full((1, 4, 5), 2)), dict(data=torch.zeros(1, 4, 5, dtype=torch.int64))
    with pytest.raises(UserError, match=r"one\.png: .* beyond the dataset's 2 classes;.*ignore_index"):
        metric.process(None, [dict(pred_sem_seg=prediction, gt_sem_seg=truth, img_path="one.png")])


def test_a_class_that_is_the_ignored_label_is_remarked(tmp_path):
    """255 is ignored by default, also where a dataset has more classes."""
    masks = {"one": np.arange(300, dtype=np.uint16).reshape(15, 20)}
    (remark,) = quick_check(make_config(tmp_path, masks, [f"class {n}" for n in range(300)]))
    assert remark.startswith("class 255 (class 255) is not counted: it is the dataset's ignore_index")

"""Masks with ids or colours of their own, as docs/your_own_data.md has them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import random_image
from numpy_scores import mean_iou
from PIL import Image

from clearclip import ClearCLIP
from clearclip.evaluation.config import class_words, load_config
from clearclip.evaluation.dataset_report import check_dataset
from clearclip.evaluation.datasets import MappedDataset
from clearclip.evaluation.run import evaluate
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
PAGE = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
# The configs of docs/your_own_data.md, and what the masks have for each class and for what does not count, by hand.
ROAD, BUILDING, LOW, TREE, CAR, CLUTTER = (
    (255,) * 3,
    (0, 0, 255),
    (0, 255, 255),
    (0, 255, 0),
    (255, 255, 0),
    (255, 0, 0),
)
MAPPED = {
    "city_categories": (
        [(7, 8), (11, 12, 13), (17, 19, 20), (21, 22), (23,), (24, 25), (26, 27, 28, 31, 32, 33)],
        (0, 3, 6, 9, 18, 30, 255),
        "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", "gtFine/val/ulm/ulm_0_gtFine_labelIds.png",
    ),
    "potsdam_whole": (
        [(ROAD,), (BUILDING,), (LOW,), (TREE,), (CAR,), (CLUTTER,)], ((0, 0, 0),),
        "2_Ortho_RGB/top_potsdam_2_13_RGB.tif", "5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif",
    ),
}  # fmt: skip


@pytest.fixture(params=MAPPED)
def mapped(request, tmp_path, quick_name):
    """A config of the page, its mask file, and that mask's values and labels."""
    classes, skipped, image_name, mask_name = MAPPED[request.param]
    (page,) = re.findall(rf"```python\n([^`]*{request.param}.*?)```", PAGE, re.DOTALL)
    shutil.copytree(CONFIG, tmp_path / "config")
    (tmp_path / "config" / "cfg.py").write_text(page)
    rng, values = np.random.default_rng(3), [*(value for group in classes for value in group), *skipped]
    meaning = [*(label for label, group in enumerate(classes) for _ in group), *[255] * len(skipped)]
    drawn = rng.integers(0, len(values), (30, 40)).repeat(4, 0).repeat(4, 1)
    mask = np.array(values, np.uint8)[drawn]
    for name, array in ((image_name, random_image(rng, *drawn.shape)), (mask_name, mask)):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "data" / name)
    options = {"clip_type": None, "vit_type": None, "model_name": quick_name, "cached": False}
    overrides = {f"model.{key}": value for key, value in options.items()}
    cfg = load_config(tmp_path / "config" / "cfg.py", overrides, str(tmp_path / "data"))
    cfg.expected_images = None
    return cfg, tmp_path / "data" / mask_name, mask, np.array(meaning)[drawn]


def test_masks_with_other_ids_or_colours(mapped, tmp_path, quick_name):
    cfg, mask_path, _, truth = mapped
    assert check_dataset(cfg).complete
    (found,) = evaluate(cfg, tmp_path / "work", device="cpu", workers=0)
    model = ClearCLIP.from_pretrained(
        quick_name, device="cpu", cached=False, long_side=cfg.test_dataloader.dataset.pipeline[1].scale[0],
        slide_crop=cfg.model.slide_crop, slide_stride=cfg.model.slide_stride,
    )  # fmt: skip
    image = next(path for path in (tmp_path / "data").rglob("*.*") if path != mask_path)
    labels = model.segment(image, class_words(cfg)).labels
    expected = mean_iou([truth], [labels], len(cfg.words), 255)
    assert found.scores.summary["mIoU"] == pytest.approx(expected, abs=1e-3)


def test_what_a_mask_has_beyond_is_named(mapped):
    cfg, mask_path, mask, _ = mapped
    mask[5, 6] = 29 if mask.ndim == 3 else 1  # below the number of classes, and no class's
    cfg.test_dataloader.dataset.skipped = [one for one in cfg.test_dataloader.dataset.skipped if one != 1]
    Image.fromarray(mask).save(mask_path)
    (problem,) = check_dataset(cfg).problems
    what = "has the colour [29, 29, 29], which" if mask.ndim == 3 else "has id(s) [1], which"
    assert f"mask {mask_path} {what}" in problem


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(), "either ids or colours"),
        (dict(ids=[1], colours=[[0, 0, 0]]), "either ids or colours"),
        (dict(ids=[1, [2, 3]], skipped=[3]), "one of them twice"),
        (dict(ids=[1, [2, "3"]]), "give an id of 0 to 65535 for each class"),
        (dict(colours=[[0, 0, 256], [0, 0, 0]]), r"give \[red, green, blue\] of 0 to 255"),
        (dict(ids=[1, 2, 3]), "3 classes are in the masks, and metainfo has 2"),
    ],
)
def test_maps_that_cannot_be_meant(given, message):
    with pytest.raises(UserError, match=message):
        MappedDataset(metainfo=dict(classes=["a", "b"]), lazy_init=True, **given)

"""What is shown while an evaluation runs: the run's own pictures, and remarks on how images were read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from colour_model import config, copied, same
from mmengine.config import Config
from PIL import Image
from storages import READ, some_picture

from clearclip import ClearCLIP
from clearclip.evaluation import hooks
from clearclip.evaluation.evaluation_picture import evaluation_picture
from clearclip.evaluation.hooks import PictureHook
from clearclip.evaluation.run import evaluate

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]

CLASSES = ["sky", "tree"]
SIZE = (40, 56)


@pytest.fixture(scope="module")
def model(quick_name: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=32, slide_stride=16, short_side=None)


def make_config(root: Path, model: ClearCLIP, suffix: str, load: dict | None = None) -> Config:
    """The config of a folder of images and masks."""
    steps = [dict(type="LoadImageFromFile", **(load or {})), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    dataset = dict(
        type="BaseSegDataset", data_root=str(root), data_prefix=dict(img_path="images", seg_map_path="masks"),
        img_suffix=suffix, metainfo=dict(classes=CLASSES), pipeline=steps,
    )  # fmt: skip
    settings = dict(type="ClearCLIPSegmentation", class_names=CLASSES, slide_crop=32, slide_stride=16)
    settings["model_name"] = model.settings.model_name
    config = dict(model=settings, dataset_name="own", custom_imports=dict(imports=["clearclip.evaluation"]))
    config |= dict(test_dataloader=dict(dataset=dataset, num_workers=0), test_evaluator=dict(type="ConfusionMetric"))
    return Config(config | dict(test_cfg=dict(type="TestLoop"), default_scope="mmseg", log_level="ERROR"))


def save_masks(root: Path, count: int, size: tuple[int, int] = SIZE) -> None:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(count):
        ids = np.random.default_rng(number).integers(0, 2, size, dtype=np.uint8)
        Image.fromarray(ids).save(root / "masks" / f"{number}.png")


@pytest.mark.parametrize("name", ["rgb.tif", "near_infrared.tif", "uint16.tif", "no_colours.jp2", "sbit_12.png"])
def test_a_storage_does_not_change_a_number(name: str, model: ClearCLIP, tmp_path: Path) -> None:
    """Counts of the same pictures as PNG; what OpenCV would have read otherwise is among the run's facts."""
    write, _ = READ[name]
    counts = {}
    for folder, suffix in (("plain", ".png"), ("stored", Path(name).suffix)):
        root = tmp_path / folder
        save_masks(root, 2)
        for number in range(2):
            picture = some_picture(*SIZE, number)
            path = root / "images" / f"{number}{suffix}"
            Image.fromarray(picture).save(path) if folder == "plain" else write(path, picture)
        (result,) = evaluate(make_config(root, model, suffix), tmp_path / "work" / folder, model=model)
        counts[folder] = result.scores.confusion
        otherwise = result.facts["input"].get("read otherwise")
        assert bool(otherwise) == (folder == "stored" and name != "rgb.tif"), json.dumps(otherwise)
    np.testing.assert_array_equal(counts["plain"], counts["stored"])


def test_pictures_show_the_image_as_the_run_read_it(model: ClearCLIP, tmp_path: Path, monkeypatch) -> None:
    """Not turned, where the config says so."""
    save_masks(tmp_path, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = some_picture(*SIZE)
    Image.fromarray(picture).save(tmp_path / "images" / "0.png", exif=exif)
    cfg = make_config(tmp_path, model, ".png", dict(color_type="color_ignore_orientation"))
    drawn = []

    def draw(image: np.ndarray, *arguments):
        drawn.append(image)
        return evaluation_picture(image, *arguments)

    monkeypatch.setattr(hooks, "evaluation_picture", draw)
    evaluate(cfg, tmp_path / "work", model=model, hooks=[PictureHook(tmp_path / "shown")])
    np.testing.assert_array_equal(drawn[0], picture)
    assert (tmp_path / "shown" / "0.png").is_file()


def test_remarks_on_images_are_told_once(model: ClearCLIP, tmp_path: Path) -> None:
    save_masks(tmp_path, 6)
    for number in range(6):
        READ["uint16.tif"][0](tmp_path / "images" / f"{number}.tif", some_picture(*SIZE, number) // 16)
    with pytest.warns(UserWarning) as caught:
        evaluate(make_config(tmp_path, model, ".tif"), tmp_path / "work", model=model)
    told = [str(warning.message) for warning in caught if "no tag names its 3 bands" in str(warning.message)]
    assert len(told) == 2, told  # before the first image, of those that were looked at, and at the end
    assert told[-1].startswith("6 image(s): ")


def test_names_that_are_no_utf_8(data, clip, tmp_path):
    root = copied(data, tmp_path)
    for folder in ("images", "masks"):
        (root / folder / "2.png").rename(os.fsdecode(os.fsencode(root / folder) + b"/caf\xe9.png"))
    cfg = config(root)
    same(cfg, tmp_path, clip)
    evaluate(cfg, tmp_path / "again", model=clip, hooks=[PictureHook(tmp_path / "shown")])
    assert b"caf\xe9.png" in [os.fsencode(path.name) for path in (tmp_path / "shown").iterdir()]

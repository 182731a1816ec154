"""Masks: the ids that a file stores, whatever decoders do to grey levels; formats by a list; tables of labels."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_datasets import blocks, save_pairs
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from numpy_scores import mean_iou
from PIL import Image
from storages import encoded, tifffile, write_raster

from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.dataset_report import check_dataset, quick_check
from clearclip.evaluation.datasets import MappedDataset
from clearclip.evaluation.mask_loading import MASK_FORMATS, decode_mask, label_table
from clearclip.evaluation.metric import ConfusionMetric
from clearclip.utils.errors import UserError

IDS = np.array([[0, 1, 2, 3, 1], [3, 2, 1, 0, 2]], np.uint8)


def grey_png(bits: int, ids: np.ndarray) -> bytes:
    """A PNG of grey levels with so few bits, byte by byte as its specification says."""
    rows = b""
    for row in ids:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("backend", ["pillow", "cv2"])
def test_grey_png_of_few_bits(bits: int, backend: str) -> None:
    ids = np.minimum(IDS, 2**bits - 1)
    np.testing.assert_array_equal(decode_mask(grey_png(bits, ids), backend), ids)


@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_tiff_of_few_bits(bits: int, photometric: str, tmp_path: Path) -> None:
    ids = np.minimum(IDS, min(255, 2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)
    write_raster(tmp_path / "a.tif", ids[None], nbits=bits, photometric=photometric)
    data = (tmp_path / "a.tif").read_bytes()
    np.testing.assert_array_equal(decode_mask(data, "pillow"), ids)
    if bits in (1, 8, 16):  # others it does not read
        np.testing.assert_array_equal(decode_mask(data, "cv2"), ids)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palettes_of_few_bits(bits: int) -> None:
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([9, 8, 7, 200, 100, 50, 1, 2, 3, 4, 5, 6])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=bits)
    np.testing.assert_array_equal(decode_mask(buffer.getvalue(), "pillow"), IDS)


def test_tifffile_s_order_of_colours(tmp_path: Path) -> None:
    """A class by its colour, whichever decoder reads the mask."""
    red, blue = [255, 0, 0], [0, 0, 255]
    colours = np.array([red, blue], np.uint8)[IDS % 2]
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    dataset = MappedDataset(colours=[red, blue], metainfo=dict(classes=["a", "b"]), lazy_init=True, test_mode=True)
    for backend in ("pillow", "cv2", "tifffile"):
        ids = dataset.mask_ids(decode_mask((tmp_path / "a.tif").read_bytes(), backend))
        np.testing.assert_array_equal(ids, IDS % 2, err_msg=backend)


def test_no_mask_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for backend in ("pillow", "cv2", "tifffile"):
        with pytest.raises(ValueError, match="no mask of a known kind, PNG, TIFF"):
            decode_mask(encoded(IDS, "EPS"), backend)
    assert not (tmp_path / "started").exists()


def test_only_formats_that_are_listed_are_tried() -> None:
    Image.init()
    for name in sorted(Image.SAVE.keys() & Image.OPEN.keys()):
        mode = {"XBM": "1", "MSP": "1"}.get(name, "L")
        buffer = io.BytesIO()
        try:
            Image.fromarray(IDS).convert(mode).save(buffer, format=name)
        except (OSError, KeyError, ValueError):  # stubs
            continue
        if name in MASK_FORMATS:
            assert decode_mask(buffer.getvalue(), "pillow").shape == IDS.shape
        else:
            with pytest.raises(ValueError, match=r"no mask of a known kind|may change ids"):
                decode_mask(buffer.getvalue(), "pillow")


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_formats_that_change_ids(name: str) -> None:
    with pytest.raises(ValueError, match=f"it is a {name}, which may change ids; save masks as PNG"):
        decode_mask(encoded(IDS, name), "pillow")


def test_masks_that_cannot_be_meant(tmp_path: Path) -> None:
    for values, message in ((IDS.astype(np.int16) - 1, "no ids of 16 bits|below 0"),
                            (IDS.astype(np.float32) + 0.5, "no ids of 16 bits")):  # fmt: skip
        tifffile.imwrite(tmp_path / "a.tif", values)
        with pytest.raises(ValueError, match=message):
            decode_mask((tmp_path / "a.tif").read_bytes(), "pillow")
    tifffile.imwrite(tmp_path / "a.tif", IDS, extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(ValueError, match="its orientation tag turns it"):
        decode_mask((tmp_path / "a.tif").read_bytes(), "pillow")


@pytest.mark.parametrize("reduce", [False, True])
def test_label_table_against_a_loop(reduce: bool) -> None:
    """Id after id, as MMSegmentation's LoadAnnotations says."""
    classes, ignore, label_map = 5, 255, {0: 0, 1: 255, 2: 1, 3: 2, 4: 3}
    table, is_allowed = label_table(classes, ignore, reduce, tuple(label_map.items()), 8)
    for mask_id in range(256):
        label = mask_id
        if reduce:
            label = 255 if mask_id in (0, 255) else mask_id - 1
        label = label_map.get(label, label)
        assert is_allowed[mask_id] == (label < classes or label == ignore), mask_id
        if is_allowed[mask_id]:
            assert table[mask_id] == label


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
    assert ours["mIoU"] == pytest.approx(mean_iou([*truths.values()], [*predictions.values()], classes, ignore))
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

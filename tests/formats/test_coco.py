"""COCO's annotations, read by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clearclip.formats import coco_dataset, mask_polygons, mask_rle

LABELS = np.zeros((40, 60), np.uint8)
LABELS[5:20, 10:30] = 1  # a rectangle
LABELS[25:35, 5:15] = 2  # two parts
LABELS[25:35, 40:50] = 2
LABELS[8:12, 14:18] = 3  # a hole in class 1
NAMES = ["sky", "tree", "boat", "небо"]


def masks(draw_size=(1, 14)):
    side = st.integers(*draw_size)
    return st.tuples(side, side).flatmap(lambda size: arrays(bool, size)).filter(lambda mask: mask.any())


@settings(max_examples=200, deadline=None)
@given(masks())
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    reader = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: pip install pycocotools")
    expected = reader.encode(np.asfortranarray(mask.astype(np.uint8)))
    written = mask_rle(mask)
    assert written["size"] == list(expected["size"]) and written["counts"].encode() == expected["counts"]


@pytest.mark.parametrize("size", [(1, 200_000), (300_000, 1), (700, 900)])
def test_long_runs(size: tuple[int, int]) -> None:
    reader = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: pip install pycocotools")
    mask = np.zeros(size, bool)
    mask[-1, -3:] = mask[0, 0] = True
    assert (reader.decode(mask_rle(mask)).astype(bool) == mask).all()


@settings(max_examples=300, deadline=None)
@given(masks())
def test_polygons_are_the_mask_to_the_pixel(mask: np.ndarray) -> None:
    reader = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: pip install pycocotools")
    polygons = mask_polygons(mask)
    if polygons is None:
        return
    [polygon] = polygons
    height, width = mask.shape
    read = reader.decode(reader.merge(reader.frPyObjects([polygon], height, width)))
    assert (read.astype(bool) == mask).all()
    x, y = np.array(polygon).reshape(-1, 2).T
    shoelace = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert shoelace == mask.sum(), "the area of the outline is the number of pixels"


def test_only_simple_masks_are_polygons() -> None:
    assert mask_polygons(LABELS == 3) == [[14, 8, 14, 12, 18, 12, 18, 8]]
    assert mask_polygons(LABELS == 2) is None and mask_polygons(LABELS == 1) is None
    diagonal = np.eye(2, dtype=bool)
    assert mask_polygons(diagonal) is None, "two pixels that meet in a corner"


@pytest.mark.parametrize("polygons", [False, True])
def test_round_trip_and_scores(polygons: bool, tmp_path: Path) -> None:
    """Every class is read back to the pixel, and a perfect prediction scores 1 for every class."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed: pip install pycocotools")
    from pycocotools.cocoeval import COCOeval

    content = coco_dataset([("a.png", LABELS), ("sub/b.png", LABELS[::-1])], NAMES, polygons)
    (tmp_path / "coco.json").write_text(json.dumps(content))
    truth = coco.COCO(str(tmp_path / "coco.json"))
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == NAMES
    assert {image["file_name"] for image in truth.imgs.values()} == {"a.png", "sub/b.png"}
    for image_id, labels in ((1, LABELS), (2, LABELS[::-1])):
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=[image_id]))
        assert sorted(one["category_id"] for one in annotations) == [1, 2, 3, 4]
        for annotation in annotations:
            mask = labels == annotation["category_id"] - 1
            assert (truth.annToMask(annotation).astype(bool) == mask).all()
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0 and annotation["id"] > 0
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
    runs = coco_dataset([("a.png", LABELS), ("sub/b.png", LABELS[::-1])], NAMES)["annotations"]
    predictions = [
        {name: annotation[name] for name in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for annotation in runs
    ]
    scores = COCOeval(truth, truth.loadRes(predictions), "segm")
    scores.evaluate()
    scores.accumulate()
    average_precision = scores.eval["precision"][:, :, :, 0, -1]
    assert (average_precision == 1).all(), "no annotation is left out of the scores"

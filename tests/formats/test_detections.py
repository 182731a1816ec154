"""Detections of the supervision package, and what it reads from our COCO files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearclip.formats import coco_dataset, to_detections
from clearclip.utils.errors import UserError

SQUARE = np.ones((3, 3), np.uint8)
LABELS = np.zeros((30, 40), np.uint8)
LABELS[5:20, 10:30] = 3
LABELS[8:12, 14:18] = 1
NAMES = ["sky", "tree", "absent", "boat"]


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        to_detections(LABELS, NAMES)


def test_masks_names_and_boxes() -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed: pip install supervision")
    detections = to_detections(LABELS, NAMES)
    assert isinstance(detections, supervision.Detections)
    assert detections.class_id.tolist() == [0, 1, 3]
    assert detections.data["class_name"].tolist() == ["sky", "tree", "boat"]
    for label, mask, box in zip(detections.class_id, detections.mask, detections.xyxy, strict=True):
        assert (mask == (label == LABELS)).all()
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    picture = np.zeros((30, 40, 3), np.uint8)
    assert supervision.MaskAnnotator().annotate(picture.copy(), detections).any()
    assert len(detections[detections.data["class_name"] == "boat"]) == 1


@pytest.mark.parametrize("polygons", [False, True])
def test_supervision_reads_our_coco_file(polygons: bool, tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed: pip install supervision")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "coco.json").write_text(json.dumps(coco_dataset([("a.png", LABELS)], NAMES, polygons)))
    dataset = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"), force_masks=True)
    assert dataset.classes == NAMES
    [(_, _, detections)] = list(dataset)
    assert detections.class_id.tolist() == [0, 1, 3]
    for label, mask in zip(detections.class_id, detections.mask, strict=True):
        expected = label == LABELS
        if polygons:
            # It fills polygons with their border, which lies on the edges of pixels: a row and a column more.
            largest = cv2.dilate(expected.astype(np.uint8), SQUARE).astype(bool)
            assert (mask >= expected).all() and (mask <= largest).all()
        else:
            assert (mask == expected).all()

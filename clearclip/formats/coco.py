"""COCO's JSON: one annotation for each class of an image, as run lengths (RLE) or polygons.

Readers of COCO have habits that cost results in silence, so: ids begin at 1 (``COCOeval`` leaves out an annotation with
id 0), ``area`` counts the pixels of the mask (``COCOeval`` sorts by it), and ``iscrowd`` is 0 for every annotation,
those in run lengths among them (crowds are left out of scores).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np


def coco_dataset(
    label_maps: Iterable[tuple[str, np.ndarray]], names: Sequence[str], polygons: bool = False
) -> dict[str, Any]:
    """Label maps as a COCO data set, ready for ``json.dump``.

    Args:
        label_maps: for each image its file name and its labels, (H, W) integers.
        names: of the classes, in label order; the category of label 0 has the id 1.
        polygons: write masks of one part and without holes as polygons. Others stay run lengths: a polygon has no hole,
            and programs that read several polygons may take each for an object.

    Returns:
        "images", "annotations" and "categories", as COCO has them.
    """
    images = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, labels) in enumerate(label_maps, start=1):
        height, width = labels.shape
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for label in np.unique(labels).tolist():
            mask = labels == label
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
            annotation |= _mask_annotation(mask, polygons)
            annotations.append(annotation)
    categories = []
    for category_id, name in enumerate(names, start=1):
        categories.append({"id": category_id, "name": name, "supercategory": ""})
    return {"images": images, "annotations": annotations, "categories": categories}


def _mask_annotation(mask: np.ndarray, polygons: bool) -> dict[str, Any]:
    """The part of an annotation that follows from its mask, (H, W) bool, which has at least one pixel."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    width = int(columns[-1]) - x + 1
    height = int(rows[-1]) - y + 1
    segmentation: Any = None
    if polygons:
        segmentation = mask_polygons(mask)
    return {
        "segmentation": segmentation or mask_rle(mask),
        "area": int(mask.sum()),
        "bbox": [x, y, width, height],
        "iscrowd": 0,
    }


def mask_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask, (H, W) bool, as COCO's compressed run lengths: {"size": [H, W], "counts": text}.

    The pixels are read column by column; the first run is of pixels outside the mask.
    """
    height, width = mask.shape
    pixels = mask.T.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    bounds = np.concatenate([[0], changes, [pixels.size]])
    runs = np.diff(bounds).tolist()
    if pixels[0]:
        # No pixel lies outside before the first one inside.
        runs.insert(0, 0)
    return {"size": [height, width], "counts": _compress_runs(runs)}


def _compress_runs(runs: Sequence[int]) -> str:
    """COCO's text for run lengths: from the third on, the difference to the run before the last.

    A number is written in groups of five bits from its lowest on, each as a letter; a group's sixth bit says that
    another one follows.
    """
    letters = []
    for index, run in enumerate(runs):
        value = run
        if index > 2:
            value -= runs[index - 2]
        is_last = False
        while not is_last:
            group = value & 0b11111
            value >>= 5
            # What remains is all zeros, or all ones of a negative number, and the sign is already in this group.
            is_negative = bool(group & 0b10000)
            is_last = value == -int(is_negative)
            if not is_last:
                group |= 0b100000
            letters.append(chr(48 + group))
    return "".join(letters)


def mask_polygons(mask: np.ndarray) -> list[list[int]] | None:
    """The outline of a mask, (H, W) bool, along the edges of its pixels: [[x, y, x, y, ...]].

    Rasterised again, it is the mask to the pixel. None for a mask of several parts or with holes.
    """
    # In an image of twice the size a contour runs through the outermost pixels; halved and rounded these are the
    # corners of the mask's own pixels.
    enlarged = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if len(contours) != 1:
        return None
    corners = (contours[0][:, 0, :].astype(int) + 1) // 2
    outline = _without_points_on_edges(corners)
    if len(np.unique(outline, axis=0)) < len(outline):
        return None  # it touches itself in a point, as two parts do that meet in a corner
    return [outline.ravel().tolist()]


def _without_points_on_edges(corners: np.ndarray) -> np.ndarray:
    """A closed outline, (N, 2), without repeated points and points within a straight edge."""
    is_new = (corners != np.roll(corners, 1, axis=0)).any(axis=1)
    corners = corners[is_new]
    step_before = corners - np.roll(corners, 1, axis=0)
    step_after = np.roll(corners, -1, axis=0) - corners
    turns = (np.sign(step_before) != np.sign(step_after)).any(axis=1)
    return corners[turns]

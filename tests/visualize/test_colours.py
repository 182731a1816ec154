"""Colours that can be told apart, and labels and similarities painted in them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from picture_checks import noise

from clearclip.utils.errors import UserError
from clearclip.visualize import class_palette, fit, heat_map, overlay


@pytest.mark.parametrize(("count", "normal", "blind"), [(7, 35, 28), (12, 30, 14), (20, 15, 5)])
def test_colours_are_distinct(count: int, normal: float, blind: float) -> None:
    """In CIE L*a*b*, where 2.3 is just noticeable; for the blind, red and green are replaced by their mean."""
    colours = class_palette(["x"] * count).astype(np.float32) / 255
    mixed = np.concatenate([(colours[:, :2] @ (0.2292, 0.7708))[:, None].repeat(2, axis=1), colours[:, 2:]], axis=1)
    for seen, least in ((colours, normal), (mixed.astype(np.float32), blind)):
        lab = cv2.cvtColor(seen[None], cv2.COLOR_RGB2LAB)[0]
        assert (np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e9 * np.eye(count)).min() > least


def test_palettes() -> None:
    many = class_palette(["x"] * 400)
    assert many.dtype == np.uint8 and len({tuple(colour) for colour in many.tolist()}) == 400
    assert (class_palette(["x"] * 30) == many[:30]).all(), "a colour must not change when classes are added"
    named = class_palette(["Background", "cat"])
    assert len(set(named[0].tolist())) == 1 and (named[1] == many[0]).all()
    assert class_palette(["a"], [(1, 2, 3), (4, 5, 6)]).tolist() == [[1, 2, 3]]
    with pytest.raises(UserError, match="1 colours for 3 classes"):
        class_palette(["a", "b", "c"], [(1, 2, 3)])
    with pytest.raises(UserError, match="red, green, blue"):
        class_palette(["a"], [(0, 0, 256)])


#: MMSegmentation's datasets in which classes share a colour: pairs of equal ones, and two classes of such a pair.
REPEATING = {
    "COCOObjectDataset": (7, "person", "bicycle"),
    "COCOStuffDataset": (10, "person", "bicycle"),
    "ADE20KDataset": (1, "road", "skyscraper"),
    "PascalContext60Dataset": (1, None, None),
    "PascalContext59Dataset": (1, None, None),
}


def lab_distances(colours: np.ndarray) -> np.ndarray:
    """Distances in CIE L*a*b* between all pairs, (K, K), infinite on the diagonal."""
    lab = cv2.cvtColor((np.asarray(colours, np.float32) / 255)[None], cv2.COLOR_RGB2LAB)[0]
    return np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.diag(np.full(len(lab), np.inf))


@pytest.mark.parametrize("name", REPEATING)
def test_classes_of_one_colour_get_colours_of_ours(name: str) -> None:
    pairs, first, second = REPEATING[name]
    meta = DATASETS.get(name).METAINFO
    classes, own = list(meta["classes"]), np.array(meta["palette"])
    equal = np.triu((own[:, None] == own[None]).all(axis=-1), 1)
    assert equal.sum() == pairs
    if first is not None:
        assert equal[classes.index(first), classes.index(second)]
    colours = class_palette(classes, own)
    assert lab_distances(colours).min() > 15
    assert (colours == class_palette(classes)).all()  # by any method, in any picture


@pytest.mark.parametrize("name", ["CityscapesDataset", "PascalVOCDataset", "LoveDADataset"])
def test_colours_that_differ_stay_the_dataset_s(name: str) -> None:
    meta = DATASETS.get(name).METAINFO
    assert class_palette(list(meta["classes"]), meta["palette"]).tolist() == [list(one) for one in meta["palette"]]


def test_many_classes_look_different() -> None:
    """459 of PASCAL Context, 847 of ADE20K in full."""
    assert lab_distances(class_palette(["x"] * 459)).min() > 10
    assert lab_distances(class_palette(["x"] * 847)).min() > 8


def test_overlay_pixel_by_pixel() -> None:
    photo, labels = noise(24, 40), np.zeros((24, 40), np.uint8)
    labels[:, 20:] = 1
    colours = np.array([(10, 20, 30), (200, 100, 0)], np.uint8)
    expected = 0.6 * photo + 0.4 * colours[labels]
    ratio = np.asarray(overlay(photo, labels, colours, opacity=0.4)).sum(axis=-1) / expected.sum(axis=-1)
    assert np.abs(np.delete(ratio, [19, 20], axis=1) - 1).max() < 0.05
    assert ratio[:, 19:21].min(axis=1).max() < 0.35, "a dark line between two classes"


def test_heat_map_runs_from_dark_to_bright() -> None:
    ramp = np.broadcast_to(np.linspace(-1, 2, 60), (5, 60))
    heat = np.asarray(heat_map(np.full((5, 60, 3), 100, np.uint8), ramp, 0, 1)).sum(axis=-1)[0]
    assert (np.diff(heat.astype(int)) >= -2).all() and heat[-1] > heat[0] + 300
    assert heat_map(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), 0, 0).size == (2, 2)


def test_fit() -> None:
    assert [fit(noise(*size), 640).shape[:2] for size in ((10, 300), (400, 300), (4000, 3000), (2, 9000))] == [
        (20, 600), (400, 300), (640, 480), (1, 640)
    ]  # fmt: skip
    labels = np.arange(6).reshape(2, 3)
    assert (fit(labels, 9) == labels.repeat(3, 0).repeat(3, 1)).all()
    assert (fit(labels.repeat(3, 0).repeat(3, 1), 3) == labels).all()

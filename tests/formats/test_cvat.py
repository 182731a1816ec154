"""CVAT's mask archive, read by Datumaro, with which CVAT reads it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.formats import write_cvat_masks
from clearclip.utils.errors import UserError
from clearclip.visualize import class_palette

LABELS = np.zeros((30, 40), np.uint8)
LABELS[5:20, 10:30] = 1
LABELS[8:12, 14:18] = 2
NAMES = ["background", "tree, old", "Бot"]
READ = """
import json, sys
import datumaro
data = datumaro.Dataset.import_from(sys.argv[1], "voc_instance_segmentation")
names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
masks = {item.id: [[names[mask.label], mask.image.astype(int).tolist()] for mask in item.annotations] for item in data}
print(json.dumps([names, masks]))
"""


def test_layout(tmp_path: Path) -> None:
    colours = class_palette(NAMES)
    path = write_cvat_masks(tmp_path / "masks.zip", [("a.jpg", LABELS), ("sub/b.png", LABELS[::-1])], NAMES, colours)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("ImageSets/Segmentation/default.txt").decode() == "a\nsub/b\n"
        lines = archive.read("labelmap.txt").decode().splitlines()
        assert lines[1:] == ["background:0,0,0::"] + [
            f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(NAMES[1:], colours[1:], strict=True)
        ]
        for stem, labels in (("a", LABELS), ("sub/b", LABELS[::-1])):
            pixels = np.asarray(Image.open(archive.open(f"SegmentationClass/{stem}.png")).convert("RGB"))
            expected = colours.copy()
            expected[0] = 0
            assert (pixels == expected[labels]).all()
            objects = np.asarray(Image.open(archive.open(f"SegmentationObject/{stem}.png")).convert("RGB"))
            assert (objects[labels == 1] == (128, 0, 0)).all() and (objects[labels == 2] == (0, 128, 0)).all()
            assert not objects[labels == 0].any()


def test_what_the_format_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "masks.zip"
    image = [("a.png", LABELS)]
    for names, colours, message in (
        (["a", "b", "c"], [(1, 1, 1), (2, 2, 2), (1, 1, 1)], "a and c have one colour"),
        (["a", "b", "c"], [(1, 1, 1), (0, 0, 0), (2, 2, 2)], "'b' is black"),
        (["a", "b:c", "d"], [(1, 1, 1), (3, 3, 3), (2, 2, 2)], "cannot hold the name 'b:c'"),
    ):
        with pytest.raises(UserError, match=message):
            write_cvat_masks(path, image, names, np.array(colours))
    with pytest.raises(UserError, match="two images are called 'a'"):
        write_cvat_masks(path, [("a.png", LABELS), ("a.jpg", LABELS)], NAMES, class_palette(NAMES))
    assert not path.exists()


def test_datumaro_reads_it(tmp_path: Path) -> None:
    """In an environment of its own where ``DATUMARO_PYTHON`` names its Python: Datumaro asks for an old NumPy."""
    python = os.environ.get("DATUMARO_PYTHON")
    if python is None and importlib.util.find_spec("datumaro") is None:
        pytest.skip("datumaro is not installed; DATUMARO_PYTHON may name a Python that has it")
    path = write_cvat_masks(tmp_path / "masks.zip", [("a.jpg", LABELS)], NAMES, class_palette(NAMES))
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "masks")
    command = [python or sys.executable, "-c", READ, str(tmp_path / "masks")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names, masks_by_item = json.loads(output.splitlines()[-1])
    assert set(NAMES) <= set(names)
    masks = {name: np.array(mask, bool) for name, mask in masks_by_item["a"]}
    assert set(masks) == set(NAMES[1:])
    for label, name in enumerate(NAMES[1:], start=1):
        assert (masks[name] == (label == LABELS)).all()

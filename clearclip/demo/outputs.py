"""What the demo leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from clearclip.pictures import save_image, write_bytes
from clearclip.segmentation import Segmentation

ENDINGS = ("_segmentation.png", "_compare.png", "_heatmaps.png", "_labels.png", "_labels.json")


class Outputs:
    """Names and writes the files of each image.

    Args:
        folder: where to.
        inputs: images that no output may replace.
    """

    def __init__(self, folder: Path, inputs: Collection[Path]):
        self.folder = folder
        self._taken = {path.resolve() for path in inputs}

    def stem(self, image: Path) -> str:
        """What the names of this image's files begin with; unlike for any other image of this run."""
        stem, number = image.stem, 1
        while self._taken & (files := {(self.folder / f"{stem}{ending}").resolve() for ending in ENDINGS}):
            number += 1
            stem = f"{image.stem}_{number}"
        self._taken |= files
        return stem

    def picture(self, stem: str, kind: str, picture: Image.Image) -> Path:
        """Write a picture: ``kind`` is "segmentation", "compare" or "heatmaps"."""
        return save_image(picture, self.folder / f"{stem}_{kind}.png")

    def labels(self, stem: str, result: Segmentation, facts: dict) -> tuple[Path, Path]:
        """Write the label map, grey values are class ids, and beside it what the ids mean.

        Args:
            stem: of :meth:`stem`.
            result: whose labels.
            facts: to be noted: image, model, method, threshold.
        """
        png = result.save_labels(self.folder / f"{stem}_labels.png")
        return png, write_bytes(self.folder / f"{stem}_labels.json", describe(result, png.name, facts))


def describe(result: Segmentation, labels: str, facts: dict) -> bytes:
    """JSON that says what each id of a label map means."""
    height, width = result.labels.shape
    classes = [
        {
            "id": label,
            "name": result.classes[label],
            "words": list(words),
            "colour": "#{:02x}{:02x}{:02x}".format(*result.colours[label]),
            "pixels": int(result.class_pixels[label]),
            "share": result.class_pixels[label] / result.labels.size,
        }
        for label, words in enumerate(result.words)
    ]
    content = {**facts, "labels": labels, "width": width, "height": height, "classes": classes}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

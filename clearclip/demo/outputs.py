"""The files that the demo writes."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from clearclip.pictures import save_image, write_bytes
from clearclip.segmentation import Segmentation

ENDINGS = ("_segmentation.png", "_compare.png", "_heatmaps.png", "_labels.png", "_labels.json")


class Outputs:
    """Names and writes the files of each image to ``folder``; none of them replaces one of ``inputs``."""

    def __init__(self, folder: Path, inputs: Collection[Path]):
        self.folder = folder
        self._taken = {path.resolve() for path in inputs}

    def stem(self, image: Path) -> str:
        """What the names of this image's files begin with; different for every image of this run."""
        stem, number = image.stem, 1
        while self._taken & (files := {(self.folder / f"{stem}{ending}").resolve() for ending in ENDINGS}):
            number += 1
            stem = f"{image.stem}_{number}"
        self._taken |= files
        return stem

    def picture(self, stem: str, kind: str, picture: Image.Image) -> Path:
        """Write a picture: ``kind`` is "segmentation", "compare" or "heatmaps"."""
        return save_image(picture, self.folder / f"{stem}_{kind}.png")

    def labels(self, stem: str, result: Segmentation, **facts: str | float) -> list[Path]:
        """Write the label map (grey values are class ids), and a JSON file with ``facts`` and what the ids mean."""
        png = result.save_labels(self.folder / f"{stem}_labels.png")
        height, width = result.labels.shape
        classes = [
            {"id": label, "name": words[0], "words": list(words), "colour": hex_colour(result, label),
             "pixels": int(result.class_pixels[label]), "share": result.class_pixels[label] / result.labels.size}
            for label, words in enumerate(result.words)
        ]  # fmt: skip
        content = {**facts, "labels": png.name, "width": width, "height": height, "classes": classes}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        return [png, write_bytes(self.folder / f"{stem}_labels.json", text.encode())]


def hex_colour(result: Segmentation, label: int) -> str:
    """The colour of a class as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*result.colours[label])

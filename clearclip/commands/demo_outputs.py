"""The files that the demo writes."""

from __future__ import annotations

import json
from pathlib import Path

from clearclip.result import Segmentation
from clearclip.utils.files import write_bytes

ENDINGS = ("segmentation.png", "compare.png", "heatmaps.png", "labels.png", "labels.json")


def free_stem(folder: Path, image: Path, taken: set[Path]) -> Path:
    """What the paths of an image's files begin with, such that none is ``taken``; they are added to it."""
    stem, number = image.stem, 1
    while taken & (files := {(folder / f"{stem}_{ending}").resolve() for ending in ENDINGS}):
        number += 1
        stem = f"{image.stem}_{number}"
    taken |= files
    return folder / stem


def write_result(stem: Path, result: Segmentation, **facts: str | float) -> list[Path]:
    """Write the picture, the label map (grey values are class ids), and ``facts`` and what the ids mean as JSON."""
    picture, labels = result.save(f"{stem}_segmentation.png"), result.save_labels(f"{stem}_labels.png")
    height, width = result.labels.shape
    classes = [
        {"id": label, "name": words[0], "words": list(words), "colour": f"#{bytes(result.colours[label]).hex()}",
         "pixels": int(result.class_pixels[label]), "share": result.class_pixels[label] / result.labels.size}
        for label, words in enumerate(result.words)
    ]  # fmt: skip
    content = {**facts, "labels": labels.name, "width": width, "height": height, "classes": classes}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return [picture, labels, write_bytes(f"{stem}_labels.json", text.encode())]

"""One page that shows the map each variant gives: the noise leaves with the residual connection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clearclip.analysis.variants import X_ATTN, X_RES, X_SUM
from clearclip.last_block import LastBlock
from clearclip.model import ClearCLIP
from clearclip.pictures import class_palette, grid_picture
from clearclip.text import ClassWords

#: From what CLIP is to what ClearCLIP is, one switch at a time, and X_res alone.
STEPS = {
    "CLIP": LastBlock("qk", residual=True, ffn=True),
    "X_sum: no FFN": X_SUM,
    "X_res alone": X_RES,
    "X_attn alone": X_ATTN,
    "ClearCLIP: q-q": LastBlock(),
}
LEGEND = 16  # classes


def maps_page(
    model: ClearCLIP,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray | None],
    classes: ClassWords,
    palette: Sequence[Sequence[int]] | None = None,
) -> Image.Image:
    """Images in rows, variants in columns.

    Args:
        model: its method is put back afterwards.
        images: (H, W, 3) uint8 RGB.
        truths: a mask (H, W) for each image, or None.
        classes: what to look for.
        palette: a colour for each class; default: this package's own.
    """
    own = model.image_encoder.method
    rows: list[list[np.ndarray]] = [[image] for image in images]
    has_truth = all(truth is not None for truth in truths)
    try:
        for row, truth in zip(rows, truths, strict=True):
            image = row[0]
            if has_truth:
                row.append(truth)
            for method in STEPS.values():
                model.image_encoder.method = method
                row.append(model.segment(image, classes).labels.astype(np.int64))
    finally:
        model.image_encoder.method = own
    colours = class_palette(classes.names, palette)
    shown = _most_frequent([labels for row in rows for labels in row[1:]], len(classes))
    legend = [(classes.names[label], tuple(int(value) for value in colours[label])) for label in shown]
    place = np.full(256 if len(classes) < 256 else len(classes) + 1, len(shown))
    place[shown] = np.arange(len(shown))
    for row in rows:
        row[1:] = [place[np.minimum(labels, len(place) - 1)] for labels in row[1:]]
    titles = ["image", *(["ground truth"] if has_truth else []), *STEPS]
    return grid_picture(rows, titles, legend)


def _most_frequent(maps: Sequence[np.ndarray], classes: int) -> list[int]:
    """The labels with the most pixels, in label order; what is left is hatched on the page."""
    counts = sum(np.bincount(labels[labels < classes].ravel(), minlength=classes) for labels in maps)
    largest = [int(label) for label in np.argsort(-counts, kind="stable")[:LEGEND] if counts[label]]
    return sorted(largest)

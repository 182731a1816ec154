"""One page that shows the map each variant gives: the noise leaves with the residual connection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearclip.analysis.inputs import Images
from clearclip.analysis.tables import CLEARCLIP, CLIP, FEATURES
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.pictures import class_palette, grid_picture, save_image

#: From what CLIP is to what ClearCLIP is, one switch at a time, and X_res alone.
STEPS = {
    "CLIP": CLIP,
    "X_sum: no FFN": FEATURES["X_sum"],
    "X_res alone": FEATURES["X_res"],
    "X_attn alone": FEATURES["X_attn"],
    "ClearCLIP: q-q": CLEARCLIP,
}
ROWS = 3  # images
LEGEND = 16  # classes


def draw_maps(model: ClearCLIP, images: Images, methods: Sequence[Method], path: str) -> None:
    """Write ``path``.png and .pdf: images spread over the input in rows; truth, variants and ``methods`` in columns.

    Raises:
        UserError: the place cannot be written.
    """
    usable, classes = images.usable, images.classes
    places = np.linspace(0, len(usable) - 1, min(ROWS, len(usable))).round().astype(int)
    photos = images.read([usable[place] for place in places])
    columns = {method.label: name for name, method in STEPS.items()}
    columns.update({method.label: method.label for method in methods if method.label not in columns})
    found = model.segment(list(photos.values()), classes, methods=[*STEPS.values(), *methods])
    maps = [[by_method[label].labels for label in columns] for by_method in found]
    truths = [images.truth(photo) for photo in photos]
    titles = ["image", *columns.values()]
    if all(truth is not None for truth in truths):
        maps = [[truth, *row] for truth, row in zip(truths, maps, strict=True)]
        titles.insert(1, "ground truth")
    pixels = np.bincount(np.concatenate([labels.ravel() for row in maps for labels in row]).astype(np.int64))
    # The legend has the most frequent classes, in label order; the others and what is ignored are hatched.
    frequent = np.argsort(-pixels[: len(classes)], kind="stable")[:LEGEND]
    shown = np.sort(frequent[pixels[frequent] > 0])
    place = np.full(len(pixels), len(shown))
    place[shown] = np.arange(len(shown))
    rows = [[photo, *(place[labels] for labels in row)] for photo, row in zip(photos.values(), maps, strict=True)]
    colours = class_palette(classes.names, images.palette)
    page = grid_picture(rows, titles, [(classes.names[label], colours[label].tolist()) for label in shown])
    for suffix in (".png", ".pdf"):
        save_image(page, path + suffix)

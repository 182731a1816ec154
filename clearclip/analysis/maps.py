"""One page that shows the map each variant gives: the noise leaves with the residual connection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clearclip.analysis.inputs import Images
from clearclip.analysis.tables import CLEARCLIP, CLIP, FEATURES
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.utils.images import read_image
from clearclip.visualize import class_palette, grid_picture, save_image

#: From what CLIP is to what ClearCLIP is, one switch at a time, and X_res alone.
STEPS = {
    "CLIP": CLIP,
    "X_sum: no FFN": FEATURES["X_sum"],
    "X_res alone": FEATURES["X_res"],
    "X_attn alone": FEATURES["X_attn"],
    "ClearCLIP: q-q": CLEARCLIP,
}
ROWS = 3  # images


def draw_maps(model: ClearCLIP, images: Images, methods: Sequence[Method], path: Path) -> None:
    """Write a page: images spread over the input in rows; truth, variants and ``methods`` in columns.

    Raises:
        UserError: the place cannot be written.
    """
    names = images.classes.names
    places = np.linspace(0, len(images.paths) - 1, min(ROWS, len(images.paths))).round().astype(int)
    photos = [read_image(images.paths[place]) for place in places]
    columns = {method.label: name for name, method in STEPS.items()}
    columns |= {method.label: method.label for method in methods if method.label not in columns}
    found = model.compare(photos, images.classes, [*STEPS.values(), *methods])
    rows = [[by_method[label].labels for label in columns] for by_method in found]
    titles, palette = list(columns.values()), None
    if images.dataset is not None:
        rows = [[images.truth(place), *row] for place, row in zip(places, rows, strict=True)]
        titles, palette = ["ground truth", *titles], images.dataset.metainfo.get("palette")
    rows = [[photo, *row] for photo, row in zip(photos, rows, strict=True)]
    legend = list(zip(names, class_palette(names, palette), strict=True))
    save_image(grid_picture(rows, ["image", *titles], legend, model.label), path)

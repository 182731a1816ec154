"""What tests of pictures look for, and what they draw."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords, TextFeatures
from clearclip.visualize.page_layout import FRAME_COLOUR
from clearclip.windows import Readout, ScoreMap, WindowGrid


def make_result(image: np.ndarray, names: list[str], seed: int = 0) -> Segmentation:
    """A result of random similarities: 16-pixel windows every 8 pixels, patches of 4 pixels."""
    classes = ClassWords.parse(names)
    grid = WindowGrid.of(image.shape[:2], 16, 8, (4, 4))
    windows = torch.rand(grid.count, *(axis.cells for axis in (grid.rows, grid.columns)), len(classes.words),
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    text = TextFeatures(classes, torch.zeros(len(classes.words), 2), torch.tensor(classes.word_to_class))
    return Segmentation(image, ScoreMap(grid.join(windows), grid), text, Readout())


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def places(picture: Image.Image, panel: np.ndarray) -> list[tuple[int, int]]:
    """Where a panel is in a picture, pixel by pixel, with its frame on all sides."""
    page = np.asarray(picture)
    height, width, _ = panel.shape
    on_frame = (page == FRAME_COLOUR).all(axis=-1)
    corners = (page == panel[0, 0]).all(axis=-1) & np.roll(on_frame, 1, axis=0) & np.roll(on_frame, 1, axis=1)
    positions = []
    for y, x in zip(*np.nonzero(corners), strict=True):
        if not np.array_equal(page[y : y + height, x : x + width], panel):
            continue
        frame = [on_frame[y - 1, x : x + width], on_frame[y + height, x : x + width]]
        frame += [on_frame[y : y + height, x - 1], on_frame[y : y + height, x + width]]
        if np.concatenate(frame).all():
            positions.append((y, x))
    return positions


def colours_in(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def margins_are_blank(picture: Image.Image, pixels: int = 8) -> bool:
    """Nothing was drawn up to the edge, so nothing was cut there."""
    array = np.asarray(picture)
    edges = (array[:pixels], array[-pixels:], array[:, :pixels], array[:, -pixels:])
    return all((edge == 255).all() for edge in edges)
